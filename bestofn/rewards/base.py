"""The one protocol of rewards, and weighted sums of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Protocol, runtime_checkable

from bestofn.types import Candidate, Prompt, Score, Usage


@runtime_checkable
class RewardModel(Protocol):
    """Scores candidates of one prompt.

    A pointwise reward says of each candidate what it would say of it alone: it may be given any
    part of the candidates, each as soon as it is drawn. A setwise one is given all of them.
    """

    name: str
    """Names the scores on a candidate."""
    pointwise: bool

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """One Score for each candidate, in their order.

        What goes wrong with a candidate is a NaN score with a reason, never an exception.
        """
        ...


class Composable:
    """Gives a reward `a + b` and `0.5 * a`."""

    def __add__(self: RewardModel, other: RewardModel) -> "WeightedSum":
        return WeightedSum((*_terms(self), *_terms(other)))

    def __mul__(self: RewardModel, weight: float) -> "WeightedSum":
        return WeightedSum(tuple((float(weight) * w, reward) for w, reward in _terms(self)))

    __rmul__ = __mul__


def _terms(reward: RewardModel) -> tuple[tuple[float, RewardModel], ...]:
    return reward.terms if isinstance(reward, WeightedSum) else ((1.0, reward),)


@dataclass(frozen=True)
class WeightedSum(Composable):
    """A weighted sum of rewards; it fails where any of them does.

    Attributes:
        terms: Weights and rewards.
    """

    terms: tuple[tuple[float, RewardModel], ...]

    @property
    def name(self) -> str:
        return " + ".join(r.name if w == 1 else f"{w:g} * {r.name}" for w, r in self.terms)

    @property
    def pointwise(self) -> bool:
        return all(reward.pointwise for _, reward in self.terms)

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        columns = await asyncio.gather(
            *(reward.score(prompt, candidates) for _, reward in self.terms)
        )
        return [self._combine(scores) for scores in zip(*columns, strict=True)]

    def _combine(self, scores: Sequence[Score]) -> Score:
        reasons = [
            f"{reward.name}: {score.reason}"
            for (_, reward), score in zip(self.terms, scores, strict=True)
            if isnan(score.value)
        ]
        total = sum(w * score.value for (w, _), score in zip(self.terms, scores, strict=True))
        return Score(
            value=total,
            reason="; ".join(reasons) or None,
            inferred=[text for score in scores for text in score.inferred],
            flags=sorted({flag for score in scores for flag in score.flags}),
            usage=sum((score.usage for score in scores), Usage()),
        )
