"""FLIP (arXiv 2602.13551): score a response by the instruction that can be read back from it.

Both rewards build the same prefix from the response and the rest of the conversation, never from
the instruction. One decodes an instruction after it, one asks how likely the true one is there.
"""

from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

from bestofn import concurrency
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError, ContextLengthError, EngineError, OtherProcessError
from bestofn.identity import identity_of
from bestofn.prompts import candidate_seed, system_message, transcript, user_message
from bestofn.rewards.base import EMPTY, Pointwise, check_choice, check_samples
from bestofn.rewards.parsing import parse_completion
from bestofn.rewards.similarity import (
    Similarity,
    find_quotes,
    name_of,
    resolve,
    without_spans,
)
from bestofn.rewards.templates import Target, load_template
from bestofn.types import Candidate, Prompt, Score, Usage

CopyGuard = Literal["off", "flag", "strip"]

CUTS = 8  # attempts to cut a response so that it fits into the context
# Share of the context that is kept free behind the prefix. It is the same for every instruction:
# the length of the true one must not decide where the response is cut.
RESERVE = 0.25
SHORT, LONG = 64, 512  # tokens of an inference: most instructions have 5 to 60, a reasoning more
FLOOR = -2.0  # nats per token; a perplexity of 7.4
PENALTY = 2.0  # nats for each below it


@dataclass(eq=False, kw_only=True)
class InverseReward(Pointwise):
    """What both rewards share: target, context, template, copy guard, cutting to the context."""

    engine: Engine = field(kw_only=False)  # the model that infers
    target: Target = "user"  # infer the last user message, or the "system" prompt
    template: str | Path = "auto"  # what suits reward and engine, or see `load_template`
    # "flag" marks responses that quote the instruction, "strip" also removes the quote before the
    # inference, "off" does neither.
    copy_guard: CopyGuard = "flag"
    name: str = ""  # of the scores on a candidate

    auto_template: ClassVar[str] = ""  # what "auto" takes, where that is not the engine's own

    def __post_init__(self) -> None:
        check_choice("target", self.target, Target)
        check_choice("copy_guard", self.copy_guard, CopyGuard)
        auto = self.auto_template or self.engine.default_template
        if auto == "opened" and self.target == "system":
            auto = "direct"  # the other one asks what the user wanted
        self.texts = load_template(auto if self.template == "auto" else self.template)

    def identity(self) -> dict[str, Any]:
        own = {option.name: getattr(self, option.name) for option in fields(self)}
        own |= {"engine": identity_of(self.engine), "template": self.texts.fingerprint}
        return super().identity() | own

    def prefix(self, prompt: Prompt, response: str) -> Prompt:
        """The backward prompt, from all of the conversation but what is to be inferred."""
        return self.texts.fill(response, _known_context(prompt, self.target), self.target)

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        instruction = (user_message if self.target == "user" else system_message)(prompt)
        if instruction is None:
            return Score(reason="the prompt has no system message to infer")
        response, flags = candidate.text, []
        if self.engine.control_tokens(response):
            flags.append("control_tokens")
        quotes = [] if self.copy_guard == "off" else find_quotes(instruction, response)
        if quotes:
            flags.append("quotes_instruction")
        if self.copy_guard == "strip":
            response = without_spans(response, quotes)
        if not response.strip():
            return Score(reason=EMPTY, flags=flags)
        return await self._fit(prompt, candidate, instruction, response, flags)

    async def _fit(
        self,
        prompt: Prompt,
        candidate: Candidate,
        instruction: str,
        response: str,
        flags: list[str],
    ) -> Score:
        """Scores the longest beginning of the response that leaves room behind the prefix."""
        spent = Usage()
        for attempt in range(CUTS):
            flags += ["cut_to_context"] if attempt == 1 else []
            prefix, limit = self.prefix(prompt, response), self.engine.context
            texts, tokens = [message.content for message in prefix.messages], None
            # A token is at least a byte, and no chat template adds as much again.
            size = 2 * sum(len(text.encode("utf-8", "replace")) for text in texts)
            if limit is not None and size > _room(limit):
                tokens = await self.engine.count_tokens(prefix)
            if limit is None or tokens is None or tokens <= _room(limit):
                try:
                    score, tokens = await self._invert(prefix, prompt, candidate, instruction)
                except ContextLengthError as error:
                    score = Score(reason="too long: no room for an answer behind the response")
                    limit, tokens = error.limit, error.prompt_tokens
                except OtherProcessError:
                    raise
                except EngineError as error:
                    score, tokens = Score(reason=f"engine: {error}"), 0
                spent += score.usage
                if limit is None or tokens <= _room(limit):
                    return replace(score, flags=[*flags, *score.flags], usage=spent)
            # Characters per token differ along a text: aim a little below what the mean allows.
            over = 1 - 0.95 * _room(limit) / tokens
            keep = int(len(response) - sum(map(len, texts)) * over)
            if keep < 1:
                break
            response = response[:keep]
        reason = "too long: the context leaves no room for the response"
        return Score(reason=reason, flags=flags, usage=spent)

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> tuple[Score, int]:
        """The score behind one prefix, and how many tokens that has."""
        raise NotImplementedError


def _room(limit: int) -> int:
    """Tokens that a prefix may have."""
    return limit - max(1, int(RESERVE * limit))


def _known_context(prompt: Prompt, target: Target) -> str:
    """All of the conversation but the message that is to be inferred, and the calls it led to.

    Those often repeat the instruction, and would give it away without the response.
    """
    asked = max(place for place, turn in enumerate(prompt.messages) if turn.role == "user")
    hidden = asked if target == "user" else 0
    before, after = prompt.messages[:hidden], prompt.messages[hidden + 1 :]
    said = [replace(turn, extra={}) for turn in after if turn.content or not turn.extra]
    return transcript([*before, *said])


@dataclass(eq=False, kw_only=True)
class FLIPReward(InverseReward):
    """Similarity between the instruction and the one inferred from the response alone.

    Source: arXiv 2602.13551. Raises ConfigError where an option makes no sense.
    """

    # "f1" (the paper's word F1), "rouge_l", "package.module:name", or a function
    # `(inferred, true) -> float`.
    similarity: str | Similarity = "f1"
    samples: int = 1  # inferences; the mean is over those that can be parsed
    temperature: float = 0.0  # several samples need one above 0, as greedy ones would be the same
    max_tokens: int | None = None  # of one inference; by default 512, of an opened answer 64
    seed: int = 0  # of sampled inferences, together with prompt, candidate and sample
    name: str = "flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_samples(self.samples, self.temperature)
        self.similar = resolve(self.similarity)
        if self.max_tokens is None:
            self.max_tokens = SHORT if self.texts.opening else LONG
        self.params = SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stop=(self.texts.closing,) if self.texts.closing else (),
            logprobs=False,
            json_schema=self.texts.json_schema,
        )

    def identity(self) -> dict[str, Any]:
        found = super().identity() | {"similarity": name_of(self.similar)}
        return {k: v for k, v in found.items() if k != "seed" or self.temperature}

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> tuple[Score, int]:
        # Seeds follow prompt and response, so that equal responses get equal inferences.
        source = replace(prefix, id=f"{prompt.id}\x1f{candidate.text}")
        seeds = [
            candidate_seed(self.seed, source, sample) if self.temperature else None
            for sample in range(self.samples)
        ]
        answers = await concurrency.gather(
            *(self.engine.generate(prefix, self.params, seed) for seed in seeds)
        )
        parsed = [parse_completion(answer, self.texts.field) for answer in answers]
        inferred = [p.text for p in parsed if p.text is not None]
        score = Score(inferred=inferred, usage=sum((a.usage for a in answers), Usage()))
        if any(p.cut for p in parsed):
            score.flags.append("inference_cut")
        if 0 < len(inferred) < len(parsed):
            score.flags.append("some_inferences_failed")
        try:
            if inferred:
                score.value = fmean(self.similar(text, instruction) for text in inferred)
            else:
                score.reason = "parse: " + "; ".join(sorted({str(p.reason) for p in parsed}))
        except Exception as error:  # the user's own function may do anything
            score.reason = f"similarity: {type(error).__name__}: {error}"
        return score, score.usage.prompt_tokens // self.samples


@dataclass(eq=False, kw_only=True)
class FLIPLikelihood(InverseReward):
    """Mean log-probability of the true instruction's tokens after the backward prefix, in nats.

    Nothing is decoded: one forward pass over the instruction, the closing token included. Of an
    instruction that takes a quarter of the model's context or more only the beginning is scored,
    the same for all candidates, and flagged. The template's answer is the instruction alone. A
    response that its own generator found improbable is penalised, see `floor`.
    """

    # Adds this times the mean log p(response | prompt) that sampling returned, a heuristic mix in
    # the spirit of the noisy channel. Tune it on other prompts than those that are reported.
    forward_weight: float = 0.0
    # A response whose generator gave it a lower mean log-probability than this, in nats per token,
    # loses twice the difference and is flagged "below_floor": gibberish behind a sound beginning
    # gives the instruction away as well as sound text does. The mean is over all generated tokens,
    # reasoning included, before temperature. None for no floor; responses that come without
    # log-probabilities have none either. It applies whatever `forward_weight` is.
    floor: float | None = FLOOR
    name: str = "flip-likelihood"

    auto_template = "direct"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.texts.output != "text":
            raise ConfigError("FLIPLikelihood needs a template whose answer is the instruction")

    def distinct_by(self, candidate: Candidate) -> object:
        """Equal responses score alike, unless their own probability counts."""
        return candidate.mean_logprob if self.forward_weight else self._below_floor(candidate)

    def _below_floor(self, candidate: Candidate) -> float:
        """How far the response's own log-probability is below the floor."""
        logprob = candidate.mean_logprob
        if self.floor is None or logprob is None or not isfinite(logprob):
            return 0.0
        return max(0.0, self.floor - logprob)

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> tuple[Score, int]:
        limit = self.engine.context
        # One token less than is free, which engines need behind what they score.
        most = limit and max(1, limit - _room(limit) - 1)
        closing = self.texts.closing
        scores = await self.engine.loglikelihood(
            prefix, instruction + closing, close=not closing, max_tokens=most
        )
        value = fmean(scores.token_logprobs)
        if self.forward_weight:
            if candidate.mean_logprob is None:
                raise ConfigError(
                    "forward_weight needs the generator's log-probabilities, which it does not "
                    "give; set it to 0 or draw the candidates with an engine"
                )
            value += self.forward_weight * candidate.mean_logprob
        flags = [] if scores.complete else ["instruction_cut"]
        if below := self._below_floor(candidate):
            value -= PENALTY * below
            flags.append("below_floor")
        return Score(value=value, flags=flags, usage=scores.usage), scores.usage.prompt_tokens
