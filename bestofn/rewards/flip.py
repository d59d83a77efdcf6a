"""FLIP (arXiv 2602.13551): score a response by the instruction that can be read back from it.

Both rewards build the same prefix from the response and the rest of the conversation, never from
the instruction. `FLIPReward` decodes an instruction after it and compares; `FLIPLikelihood` asks
how likely the true one is there.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

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
# Share of the context that is kept for what stands behind the prefix. It is the same for every
# instruction: the length of the true one must not decide where the response is cut.
RESERVE = 0.25


@dataclass(slots=True)
class _Backward:
    """The response of one candidate on its way to a score."""

    response: str
    context: str
    flags: list[str] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class InverseReward(Pointwise):
    """What both rewards share: target, context, template, copy guard, cutting to the context.

    Args:
        engine: The model that infers.
        target: What is inferred: "user" for the last user message, "system" for the system prompt.
        template: "auto" (what suits the reward and the engine), a built-in name, or a path; see
            `load_template`.
        copy_guard: "flag" marks responses that quote the instruction, "strip" also removes the
            quote before the inference, "off" does neither.
        name: Of the scores on a candidate.
    """

    engine: Engine = field(kw_only=False)
    target: Target = "user"
    template: str | Path = "auto"
    copy_guard: CopyGuard = "flag"
    name: str = ""

    requests = 1
    """Requests that share one prefix."""

    def __post_init__(self) -> None:
        check_choice("target", self.target, Target)
        check_choice("copy_guard", self.copy_guard, CopyGuard)
        self.texts = load_template(
            self._auto_template() if self.template == "auto" else self.template
        )

    def _auto_template(self) -> str:
        return self.engine.default_template

    def identity(self) -> dict[str, Any]:
        return super().identity() | {
            "engine": identity_of(self.engine),
            "template": self.texts.fingerprint,
            "target": self.target,
            "copy_guard": self.copy_guard,
        }

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        instruction = self.instruction(prompt)
        if instruction is None:
            return Score(reason="the prompt has no system message to infer")
        backward = self.prepare(prompt, candidate.text)
        if not backward.response.strip():
            return Score(reason=EMPTY, flags=backward.flags)
        score = await self._fit(backward, prompt, candidate, instruction)
        score.flags = [*backward.flags, *score.flags]
        return score

    def instruction(self, prompt: Prompt) -> str | None:
        """The message that is to be inferred; None where the prompt has no such message."""
        return user_message(prompt) if self.target == "user" else system_message(prompt)

    def prepare(self, prompt: Prompt, response: str) -> _Backward:
        """The part of the response that is inverted, with what was noticed about it."""
        backward = _Backward(response, _known_context(prompt, self.target))
        if self.engine.control_tokens(response):
            backward.flags.append("control_tokens")
        instruction = self.instruction(prompt)
        if self.copy_guard != "off" and instruction is not None:
            if quotes := find_quotes(instruction, response):
                backward.flags.append("quotes_instruction")
            if self.copy_guard == "strip":
                backward.response = without_spans(response, quotes)
        return backward

    def prefix(self, backward: _Backward) -> Prompt:
        """The backward prompt. It has no access to the instruction."""
        return self.texts.fill(backward.response, backward.context, self.target)

    async def _fit(
        self, backward: _Backward, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> Score:
        """Scores the longest beginning of the response that leaves room behind the prefix."""
        spent = Usage()
        for _ in range(CUTS):
            prefix, limit = self.prefix(backward), self.engine.context
            tokens = await self._count_if_long(prefix)
            if limit is None or tokens is None or tokens <= _room(limit):
                try:
                    score = await self._invert(prefix, prompt, candidate, instruction)
                    tokens = score.usage.prompt_tokens // self.requests
                except ContextLengthError as error:
                    score = Score(reason="too long: no room for an answer behind the response")
                    limit, tokens = error.limit, error.prompt_tokens
                except OtherProcessError:
                    raise
                except EngineError as error:
                    return Score(reason=f"engine: {error}", usage=spent)
                spent += score.usage
                if limit is None or tokens <= _room(limit):
                    score.usage = spent
                    return score
            # Characters per token differ along a text: aim a little below what the mean allows.
            characters = sum(len(message.content) for message in prefix.messages)
            keep = len(backward.response) - characters * (1 - 0.95 * _room(limit) / tokens)
            if keep < 1:
                break
            backward.response = backward.response[: int(keep)]
            if "cut_to_context" not in backward.flags:
                backward.flags.append("cut_to_context")
        return Score(reason="too long: the context leaves no room for the response", usage=spent)

    async def _count_if_long(self, prefix: Prompt) -> int | None:
        """Tokens of a prefix that may leave too little room; None if it fits or nobody knows."""
        limit = self.engine.context
        size = sum(len(message.content.encode("utf-8", "replace")) for message in prefix.messages)
        # A token is at least a byte, and no chat template adds as much again.
        if limit is None or 2 * size <= _room(limit):
            return None
        return await self.engine.count_tokens(prefix)

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> Score:
        """The score behind one prefix; its usage counts the prefix's tokens once a request."""
        raise NotImplementedError


def _reserve(limit: int) -> int:
    return max(1, int(RESERVE * limit))


def _room(limit: int) -> int:
    """Tokens that a prefix may have."""
    return limit - _reserve(limit)


def _known_context(prompt: Prompt, target: Target) -> str:
    """All of the conversation but the message that is to be inferred, and the calls it led to.

    Those often repeat the instruction, and would tell it without the response.
    """
    asked = max(place for place, turn in enumerate(prompt.messages) if turn.role == "user")
    hidden = asked if target == "user" else 0
    before, after = prompt.messages[:hidden], prompt.messages[hidden + 1 :]
    said = [replace(turn, extra={}) for turn in after if turn.content or not turn.extra]
    return transcript([*before, *said])


@dataclass(eq=False, kw_only=True)
class FLIPReward(InverseReward):
    """Similarity between the instruction and the one inferred from the response alone.

    Args:
        similarity: "f1" (the paper's word F1), "rouge_l", "package.module:name", or any function
            `(inferred, true) -> float`.
        samples: Inferences to average; the mean is over those that can be parsed. Several need a
            temperature above 0, as greedy ones would be the same.
        temperature: Of the inferences.
        max_tokens: Of one inference.
        seed: Of sampled inferences, together with prompt, candidate and sample.
        engine, target, template, copy_guard, name: See `InverseReward`.

    Source: arXiv 2602.13551.
    """

    similarity: str | Similarity = "f1"
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    name: str = "flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_samples(self.samples, self.temperature)
        self.requests = self.samples
        self.similar = resolve(self.similarity)
        self.params = SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            logprobs=False,
            json_schema=self.texts.json_schema,
        )

    def identity(self) -> dict[str, Any]:
        found = super().identity() | {
            "similarity": name_of(self.similar),
            "samples": self.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        return found | ({"seed": self.seed} if self.temperature else {})

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> Score:
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
        if not inferred:
            score.reason = "parse: " + "; ".join(sorted({str(p.reason) for p in parsed}))
            return score
        if len(inferred) < len(parsed):
            score.flags.append("some_inferences_failed")
        try:
            score.value = fmean(self.similar(text, instruction) for text in inferred)
        except Exception as error:  # the user's own function may do anything
            score.reason = f"similarity: {type(error).__name__}: {error}"
        return score


@dataclass(eq=False, kw_only=True)
class FLIPLikelihood(InverseReward):
    """Mean log-probability of the true instruction's tokens after the backward prefix, in nats.

    Nothing is decoded: one forward pass over the instruction, the closing token included. Of an
    instruction that takes a quarter of the model's context or more only the beginning is scored,
    the same for all candidates, and flagged.

    Args:
        forward_weight: Adds this times the mean log p(response | prompt) that sampling returned,
            a heuristic mix in the spirit of the noisy channel. Tune it on other prompts than
            those that are reported.
        engine, target, template, copy_guard, name: See `InverseReward`. The template is one whose
            answer is the instruction alone; "auto" takes `direct`.
    """

    forward_weight: float = 0.0
    name: str = "flip-likelihood"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.texts.output != "text":
            raise ConfigError("FLIPLikelihood needs a template whose answer is the instruction")

    def _auto_template(self) -> str:
        return "direct"

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"forward_weight": self.forward_weight}

    def distinct_by(self, candidate: Candidate) -> object:
        """Equal responses score alike, unless their own probability counts."""
        return candidate.mean_logprob if self.forward_weight else None

    async def _invert(
        self, prefix: Prompt, prompt: Prompt, candidate: Candidate, instruction: str
    ) -> Score:
        limit = self.engine.context
        # One token less, which engines need behind what they score.
        scores = await self.engine.loglikelihood(
            prefix, instruction, close=True, max_tokens=limit and max(1, _reserve(limit) - 1)
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
        return Score(value=value, flags=flags, usage=scores.usage)
