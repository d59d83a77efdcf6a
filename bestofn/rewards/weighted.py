"""Weighted sums of rewards: `a + 0.5 * b`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from numbers import Real
from typing import Self

from bestofn import loop
from bestofn.rewards.base import RewardModel
from bestofn.rewards.scoring import add_scores
from bestofn.types import Candidate, Prompt, Score, Usage


class Composable:
    """Gives a reward `a + b`, `a - b`, `0.5 * a`, `-a` and `sum([a, b])`."""

    name: str
    pointwise: bool

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        raise NotImplementedError

    def __add__(self, other: RewardModel) -> "WeightedSum":
        if not isinstance(other, RewardModel):
            return NotImplemented
        return WeightedSum((*_terms(self), *_terms(other)))

    def __radd__(self, other: RewardModel | int) -> "Self | WeightedSum":
        if isinstance(other, RewardModel):
            return WeightedSum((*_terms(other), *_terms(self)))
        return self if other == 0 else NotImplemented  # where `sum` starts

    def __mul__(self, weight: float) -> "WeightedSum":
        if not isinstance(weight, Real):
            return NotImplemented
        return WeightedSum(tuple((float(weight) * w, reward) for w, reward in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self) -> "WeightedSum":
        return self * -1.0

    def __sub__(self, other: "Composable") -> "WeightedSum":
        if not isinstance(other, Composable):
            return NotImplemented
        return self + -other


def _terms(reward: RewardModel) -> tuple[tuple[float, RewardModel], ...]:
    return reward.terms if isinstance(reward, WeightedSum) else ((1.0, reward),)


@dataclass(frozen=True)
class WeightedSum(Composable):
    """A weighted sum of rewards; it fails where any of them does.

    It keeps what its terms say besides their values; counts of one name, such as two judges'
    calls, are added up.

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

    def distinct_by(self, candidate: Candidate) -> object:
        own = [getattr(reward, "distinct_by", None) for _, reward in self.terms]
        return tuple(distinct_by(candidate) for distinct_by in own if distinct_by is not None)

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        columns = await loop.gather(*(_column(r, prompt, candidates) for _, r in self.terms))
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
            counts=dict(sum((Counter(score.counts) for score in scores), Counter())),
            usage=sum((score.usage for score in scores), Usage()),
        )


async def _column(
    reward: RewardModel, prompt: Prompt, candidates: Sequence[Candidate]
) -> list[Score]:
    """One term's scores, on copies: the candidates themselves get only the sum."""
    copies = [replace(candidate, scores={}) for candidate in candidates]
    await add_scores(prompt, copies, reward)
    return [copy.scores[reward.name] for copy in copies]
