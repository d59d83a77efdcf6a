"""Weighted sums of rewards: `a + 0.5 * b`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from numbers import Real
from typing import Any

from bestofn import concurrency
from bestofn.identity import identity_of
from bestofn.scoring import RewardModel, add_scores
from bestofn.types import Candidate, Prompt, Score


class Composable:
    """Gives a reward `a + b`, `a - b`, `0.5 * a`, `-a` and `sum([a, b])`."""

    def __add__(self: RewardModel, other: RewardModel, weight: float = 1.0) -> "WeightedSum":
        if not isinstance(other, RewardModel):
            return NotImplemented
        return WeightedSum((*_terms(self), *_terms(other, weight)))

    def __radd__(self: RewardModel, other: RewardModel | int) -> "RewardModel | WeightedSum":
        if isinstance(other, RewardModel):
            return Composable.__add__(other, self)
        return self if other == 0 else NotImplemented  # `sum` starts with 0

    def __sub__(self: RewardModel, other: RewardModel) -> "WeightedSum":
        return Composable.__add__(self, other, -1.0)

    def __mul__(self: RewardModel, weight: float) -> "WeightedSum":
        if not isinstance(weight, Real):
            return NotImplemented
        return WeightedSum(_terms(self, weight))

    __rmul__ = __mul__

    def __neg__(self: RewardModel) -> "WeightedSum":
        return WeightedSum(_terms(self, -1.0))


_Terms = tuple[tuple[float, RewardModel], ...]


def _terms(reward: RewardModel, weight: float = 1.0) -> _Terms:
    terms = reward.terms if isinstance(reward, WeightedSum) else ((1.0, reward),)
    return tuple((float(weight * own), term) for own, term in terms)


@dataclass(frozen=True)
class WeightedSum(Composable):
    """A weighted sum of rewards; it fails where any of them does.

    It keeps what its terms say besides their values; counts of one name, such as two judges'
    calls, are added up.

    Attributes:
        terms: Weights and rewards.
    """

    terms: _Terms

    @property
    def name(self) -> str:
        return " + ".join(r.name if w == 1 else f"{w:g} * {r.name}" for w, r in self.terms)

    @property
    def pointwise(self) -> bool:
        return all(reward.pointwise for _, reward in self.terms)

    def distinct_by(self, candidate: Candidate) -> object:
        own = [getattr(reward, "distinct_by", None) for _, reward in self.terms]
        return tuple(distinct_by(candidate) for distinct_by in own if distinct_by is not None)

    def identity(self) -> dict[str, Any]:
        """What scores depend on; see `bestofn.identity`."""
        terms = {
            str(place): {"weight": weight, "reward": identity_of(reward)}
            for place, (weight, reward) in enumerate(self.terms)
        }
        return {"kind": type(self).__name__, "terms": terms}

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        # On copies: the candidates themselves get only the sum.
        copies = [[replace(c, scores={}) for c in candidates] for _ in self.terms]
        rewards = [reward for _, reward in self.terms]
        await concurrency.gather(
            *(add_scores(prompt, *pair) for pair in zip(copies, rewards, strict=True))
        )
        return [self._combine(same) for same in zip(*copies, strict=True)]

    def _combine(self, copies: Sequence[Candidate]) -> Score:
        """The sum for one candidate, of which each term has scored a copy."""
        total, reasons, counts = Score(0.0), list[str](), Counter[str]()
        for (weight, reward), copy in zip(self.terms, copies, strict=True):
            score = copy.scores[reward.name]
            total.value += weight * score.value
            total.inferred += score.inferred
            total.flags = sorted({*total.flags, *score.flags})
            total.usage += score.usage
            counts.update(score.counts)
            if isnan(score.value):
                reasons.append(f"{reward.name}: {score.reason}")
        total.reason, total.counts = "; ".join(reasons) or None, dict(counts)
        return total
