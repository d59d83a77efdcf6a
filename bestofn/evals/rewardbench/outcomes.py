"""What one reward makes of items: whether its best response is a right one, item by item."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isnan
from statistics import fmean
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bestofn.evals.rewardbench.items import GOLD, scores_of
from bestofn.types import Pool

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one item.

    Attributes:
        strict: 1 where a single response has the best value and it is a right one; ties and items
            of which every score failed are wrong.
        credit: The share of right ones among the responses with the best value: what a fair draw
            among them would give in expectation. Where every score failed, among all of them.
        tie: 1 where several share the best value.
        failures: The share of scores that failed.
        all_failed: 1 where every score did.
        chance: The share of right ones among all responses.
    """

    strict: float
    credit: float
    tie: float
    failures: float
    all_failed: float
    chance: float

    @classmethod
    def of(cls, values: Sequence[float], right: Sequence[bool]) -> Self:
        """The outcome of these scores, NaN where one failed; a failed one loses to any value."""
        failures = float(np.mean(np.isnan(values)))
        chance = sum(right) / len(right)
        if failures == 1:
            return cls(0.0, chance, 0.0, failures, 1.0, chance)
        best = max(value for value in values if not isnan(value))
        among = [ok for value, ok in zip(values, right, strict=True) if value == best]
        credit = sum(among) / len(among)
        alone = len(among) == 1
        return cls(float(alone and among[0]), credit, float(not alone), failures, 0.0, chance)


FIELDS = tuple(field.name for field in fields(Outcome))


def outcomes(pools: Sequence[Sequence[Pool]], name: str) -> Array:
    """The outcomes of the scores of that name, each a mean over seeds: `[items, FIELDS]`.

    Args:
        pools: `[seeds][items]`, with at least one item.
        name: The scores'.

    Raises:
        ConfigError: a response has no such score.
    """
    values = [[_outcome(pool, name) for pool in rows] for rows in pools]
    means: Array = np.array(values, dtype=np.float64).mean(axis=0)
    return means


def _outcome(pool: Pool, name: str) -> tuple[float, ...]:
    right = [score.value > 0 for score in scores_of(pool, GOLD)]
    found = Outcome.of([score.value for score in scores_of(pool, name)], right)
    return tuple(getattr(found, field) for field in FIELDS)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the scores of a name came to.

    Attributes:
        tokens: That the model computed, for an item and a seed in the mean.
        seconds: Wall-clock time, for an item and a seed in the mean.
        counts: What a judge's calls came to in all, such as picks of the first place.
    """

    tokens: float
    seconds: float
    counts: Counter[str]

    @classmethod
    def of(cls, pools: Sequence[Sequence[Pool]], name: str) -> "Cost":
        """The cost over `[seeds][items]`."""
        rows = [pool for seed in pools for pool in seed]
        scores = [score for pool in rows for score in scores_of(pool, name)]
        counts = Counter[str]()
        for score in scores:
            counts.update(score.counts)
        if any(name.startswith("place_") for name in counts):
            # Places that were never picked are places too.
            largest = max(len(pool.candidates) for pool in rows)
            counts.update({f"place_{place}": 0 for place in range(1, largest + 1)})
        return cls(
            sum(score.usage.computed_tokens for score in scores) / len(rows),
            sum(pool.seconds.get(name, 0.0) for pool in rows) / len(rows),
            counts,
        )

    @classmethod
    def mean(cls, costs: Sequence["Cost"]) -> "Cost":
        """The mean over several models; counts are added up."""
        counts = Counter[str]()
        for cost in costs:
            counts.update(cost.counts)
        return cls(
            fmean(cost.tokens for cost in costs), fmean(cost.seconds for cost in costs), counts
        )
