"""Mutual information: what the instruction explains of the response."""

from dataclasses import dataclass, field
from typing import Any

from bestofn import concurrency
from bestofn.engines.base import Engine, TokenScores
from bestofn.errors import ConfigError, ContextLengthError, EngineError, OtherProcessError
from bestofn.identity import identity_of
from bestofn.prompts import as_prompt
from bestofn.rewards.base import Pointwise
from bestofn.rewards.flip import FLIPLikelihood
from bestofn.types import Candidate, Prompt, Score

NEUTRAL = "Write a text."


@dataclass(eq=False, kw_only=True)
class MutualInformation(Pointwise):
    """How much likelier the instruction makes the response, in nats for each token.

    The sum over the tokens of the response of log p(y | x) - log p(y), over their number to the
    power of `length_exponent`: pointwise mutual information (as in MMI, Li et al. 2016), from two
    forced passes of one engine, the second behind a prompt that asks for nothing special. Both
    prefixes are the same for all candidates and stay in the cache.

    Prefer it to `FLIPLikelihood` where all responses are on topic and differ in how well they
    follow the instruction, and the model has some half a billion parameters or more. At 135 million
    it gains nothing once length is balanced. Where longer responses are the better ones it needs
    `length_exponent=0` (docs/real.md).

    Args:
        engine: The model that reads.
        length_exponent: 1 is the mean over the tokens, which leans to short responses; 0 is their
            sum, which does not.
        neutral: The prompt that asks for nothing special.
        backward_weight: Adds this times what `FLIPLikelihood` gives on the same engine, without
            its floor.
        name: Of the scores on a candidate.

    Raises:
        ConfigError: an option makes no sense.
    """

    engine: Engine = field(kw_only=False)
    length_exponent: float = 1.0
    neutral: str = NEUTRAL
    backward_weight: float = 0.0
    name: str = "mutual"

    settings = ("length_exponent", "neutral", "backward_weight")

    def __post_init__(self) -> None:
        if not 0 <= self.length_exponent <= 1:
            raise ConfigError(f"length_exponent must be in [0, 1], not {self.length_exponent}")
        self._neutral = as_prompt(self.neutral)
        self._backward = FLIPLikelihood(self.engine, floor=None) if self.backward_weight else None

    def identity(self) -> dict[str, Any]:
        found = super().identity() | {"engine": identity_of(self.engine)}
        if self._backward is not None:
            found["template"] = self._backward.texts.fingerprint
        return found

    async def score_one(self, prompt: Prompt, candidate: Candidate) -> Score:
        try:
            most = await self._room(prompt)
            if most is not None and most < 1:
                return Score(reason="too long: the prompt leaves no room for the response")
            asked, alone = await concurrency.gather(
                *(self._read(given, candidate.text, most) for given in (prompt, self._neutral))
            )
        except OtherProcessError:
            raise
        except EngineError as error:
            cause = "too long" if isinstance(error, ContextLengthError) else "engine"
            return Score(reason=f"{cause}: {error}")
        gain = sum(asked.token_logprobs) - sum(alone.token_logprobs)
        score = Score(gain / len(asked.token_ids) ** self.length_exponent)
        score.flags = [] if asked.complete else ["cut_to_context"]
        score.usage = asked.usage + alone.usage
        if self._backward is not None:
            (backward,) = await self._backward.score(prompt, [candidate])
            score.usage += backward.usage
            score.value += self.backward_weight * backward.value
            score.reason = backward.reason
            score.flags += [flag for flag in backward.flags if flag not in score.flags]
        return score

    async def _read(self, given: Prompt, response: str, most: int | None) -> TokenScores:
        return await self.engine.loglikelihood(given, response, max_tokens=most)

    async def _room(self, prompt: Prompt) -> int | None:
        """Tokens of a response that fit behind both prompts, None if the engine cannot tell."""
        if self.engine.context is None:
            return None
        counts = [await self.engine.count_tokens(given) for given in (prompt, self._neutral)]
        return None if None in counts else self.engine.context - max(filter(None, counts)) - 1
