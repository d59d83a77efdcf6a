"""Accuracies of rewards by subset, with intervals and differences, from scored items."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import permutations
from math import isnan, nan
from statistics import fmean
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bestofn.estimators import (
    Interval,
    gain_percent,
    interval,
    resampled_stratum_means,
    stratum_means,
)
from bestofn.evals.rewardbench.items import GOLD, MEAN, TIES, scores_of
from bestofn.evals.rewardbench.ties import ties_score
from bestofn.types import Pool

Array = NDArray[np.float64]
Pools = Sequence[Sequence[Pool]]

STRICT, CREDIT = "strict", "credit"
CONVENTIONS = (STRICT, CREDIT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one reward on one item.

    Attributes:
        strict: 1 where a single response has the best value and it is a right one; ties and items
            of which every score failed are wrong.
        credit: The share of right ones among the responses with the best value: what a fair draw
            among them would give in expectation. Where every score failed, among all of them.
        tie_rate: 1 where several share the best value.
        failure_rate: The share of scores that failed.
        all_failed: 1 where every score did.
        chance: The share of right ones among all responses.
    """

    strict: float
    credit: float
    tie_rate: float
    failure_rate: float
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
        alone = len(among) == 1
        credit = sum(among) / len(among)
        return cls(float(alone and among[0]), credit, float(not alone), failures, 0.0, chance)


FIELDS = tuple(part.name for part in fields(Outcome))


def outcomes(pools: Pools, name: str) -> Array:
    """The outcomes of the scores of that name, each a mean over seeds: `[items, FIELDS]`.

    Args:
        pools: `[seeds][items]`, with at least one item.
        name: The scores'.

    Raises:
        ConfigError: a response has no such score.
    """

    def outcome(pool: Pool) -> list[float]:
        right = [score.value > 0 for score in scores_of(pool, GOLD)]
        found = Outcome.of([score.value for score in scores_of(pool, name)], right)
        return [getattr(found, name) for name in FIELDS]

    means: Array = np.array([[*map(outcome, rows)] for rows in pools]).mean(axis=0)
    return means


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of the scores of a name.

    Attributes:
        tokens: Computed by the model, per item and seed.
        seconds: Wall-clock time, per item and seed.
        counts: Of a judge's calls in all, such as picks of the first place.
    """

    tokens: float
    seconds: float
    counts: Counter[str]

    @classmethod
    def of(cls, pools: Pools, name: str) -> "Cost":
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
        """The mean over models; counts are added up."""
        counts = Counter[str]()
        for cost in costs:
            counts.update(cost.counts)  # which keeps counts of 0
        return cls(fmean(c.tokens for c in costs), fmean(c.seconds for c in costs), counts)


@dataclass(frozen=True, slots=True)
class Line:
    """One reward, with one model.

    Attributes:
        label: The name of its scores.
        reward: The reward's own label.
        kind: What the reward is called in the registry.
        model: The model that scored, where there are several and one of them did.
    """

    label: str
    reward: str
    kind: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The means of `Outcome` over a subset, or over subsets; accuracies with intervals."""

    strict: Interval
    credit: Interval
    tie_rate: float
    failure_rate: float
    all_failed: float
    chance: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The estimates of one line.

    Attributes:
        line: The line.
        by_subset: Its estimates, the last one under "mean"; empty where there is only Ties.
        ties: The score of the subset Ties, None without its items.
        ties_failures: The share of the scores of Ties that failed, 0 without its items.
        cost: What its scores cost.
        sampled: The numbers that the estimates are made from.
    """

    line: Line
    by_subset: dict[str, Estimate]
    ties: Interval | None
    ties_failures: float
    cost: Cost
    sampled: "Sampled" = field(repr=False, compare=False)

    @property
    def all_failed(self) -> bool:
        """Whether every score outside Ties failed."""
        return bool(self.by_subset) and self.by_subset[MEAN].failure_rate == 1


@dataclass(frozen=True, slots=True)
class Sampled:
    """Means over items with those of resampled items; all lines share the resamples.

    Attributes:
        means: `[columns, FIELDS]`, by subset, their mean last.
        draws: `[resamples, columns, FIELDS]`.
        ties: The score of the subset Ties and `[resamples]` of it; NaN without its items.
    """

    means: Array
    draws: Array
    ties: tuple[float, Array]

    @classmethod
    def mean(cls, parts: Sequence["Sampled"]) -> Self:
        """The mean over models or seeds."""
        return cls(
            np.mean([part.means for part in parts], axis=0),
            np.mean([part.draws for part in parts], axis=0),
            _mean_ties([part.ties for part in parts]),
        )


def _mean_ties(parts: Sequence[tuple[float, Array]]) -> tuple[float, Array]:
    return fmean(value for value, _ in parts), np.mean([draws for _, draws in parts], axis=0)


@dataclass(frozen=True, slots=True)
class Difference:
    """One line against another, on the same resamples.

    Attributes:
        a: The label of the one.
        b: That of the other.
        convention: "strict" or "credit".
        minus: By subset, the accuracy of a minus that of b, the last one under "mean".
        gain: By subset, by how many percent a is more than b; None where b is 0.
    """

    a: str
    b: str
    convention: str
    minus: dict[str, Interval]
    gain: dict[str, Interval | None]


class Evaluation:
    """Accuracies of scored items.

    Args:
        pools: `[seeds][items]`, the same items for each seed, in the same order.
        lines: What to estimate.
        over_models: Whether to estimate the mean over models of each reward as well.
        resamples: Of the bootstrap, which draws items within their subsets.
        level: Of the intervals.
        seed: Of the resampling.

    Attributes:
        subsets: The number of items by subset, without Ties.
        ties_items: Those of the subset Ties.
        seeds: How often the items were scored.
        columns: The subsets and their mean; empty where there is only Ties.
        accuracies: Of the lines.
        overall: Of each reward; with `over_models` its mean over models, under its own label.
        differences: Of each of `overall` to each other one, in both conventions.

    Raises:
        ConfigError: a score is missing.
    """

    def __init__(
        self,
        pools: Pools,
        lines: Sequence[Line],
        *,
        over_models: bool = False,
        resamples: int = 2000,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.seeds, self.resamples, self.level, self._seed = len(pools), resamples, level, seed
        self._pools = pools
        self._plain = [[pool for pool in rows if _subset(pool) != TIES] for rows in pools]
        self._ties = [[pool for pool in rows if _subset(pool) == TIES] for rows in pools]
        of_items = [_subset(pool) for pool in self._plain[0]]
        self.subsets = {name: of_items.count(name) for name in dict.fromkeys(of_items)}
        self.ties_items = len(self._ties[0])
        self.columns = [*self.subsets, MEAN] if self.subsets else []
        self._strata = [[*self.subsets].index(name) for name in of_items]
        self.accuracies = [self._of_scores(line) for line in lines]
        self.overall = self.accuracies
        if over_models:
            self.overall = [*map(self._mean_over_models, dict.fromkeys(a.reward for a in lines))]
        self.differences = [
            self._difference(a, b, convention)
            for a, b in permutations(self.overall, 2)
            for convention in CONVENTIONS
            if self.subsets
        ]

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random choice, by column."""
        return {name: found.chance for name, found in self.overall[0].by_subset.items()}

    @property
    def models(self) -> list[str]:
        """Those that the lines name; none where there are not several."""
        return list(dict.fromkeys(a.line.model for a in self.accuracies if a.line.model))

    def _of_scores(self, line: Line) -> Accuracy:
        """Of the scores of the line's name, on all items."""
        name, resamples, seed = line.label, self.resamples, self._seed
        means, draws = np.empty((0, len(FIELDS))), np.empty((resamples, 0, len(FIELDS)))
        if self.subsets:
            values = outcomes(self._plain, name)
            means = stratum_means(values, self._strata)
            draws = resampled_stratum_means(values, self._strata, resamples=resamples, seed=seed)
        ties, failed = (nan, np.full(resamples, nan)), 0.0
        if self.ties_items:
            of_seeds = [ties_score(p, name, resamples=resamples, seed=seed) for p in self._ties]
            ties = _mean_ties(of_seeds)
            rows = [pool for pools in self._ties for pool in pools]
            failed = fmean(isnan(score.value) for row in rows for score in scores_of(row, name))
        sampled = Sampled(means, draws, ties)
        return self._accuracy(line, sampled, failed, Cost.of(self._pools, name))

    def _mean_over_models(self, reward: str) -> Accuracy:
        parts = [a for a in self.accuracies if a.line.reward == reward]
        return self._accuracy(
            Line(reward, reward, parts[0].line.kind),
            Sampled.mean([part.sampled for part in parts]),
            fmean(part.ties_failures for part in parts),
            Cost.mean([part.cost for part in parts]),
        )

    def _accuracy(self, line: Line, sampled: Sampled, ties_failures: float, cost: Cost) -> Accuracy:
        by_subset = {}
        for place, name in enumerate(self.columns):
            means = dict(zip(FIELDS, sampled.means[place].tolist(), strict=True))
            draws = dict(zip(FIELDS, sampled.draws[:, place].T, strict=True))
            known = {c: interval(means[c], draws[c], self.level) for c in CONVENTIONS}
            by_subset[name] = Estimate(**means | known)
        ties = interval(*sampled.ties, self.level) if self.ties_items else None
        return Accuracy(line, by_subset, ties, ties_failures, cost, sampled)

    def _difference(self, a: Accuracy, b: Accuracy, convention: str) -> Difference:
        minus, gain = {}, {}
        for place, name in enumerate(self.columns):
            at = place, FIELDS.index(convention)
            x, y = (float(side.sampled.means[at]) for side in (a, b))
            x_draws, y_draws = (side.sampled.draws[:, *at] for side in (a, b))
            minus[name] = interval(x - y, x_draws - y_draws, self.level)
            gain[name] = gain_percent(x, y, x_draws, y_draws, self.level)
        return Difference(a.line.label, b.line.label, convention, minus, gain)


def _subset(pool: Pool) -> str:
    return str(pool.prompt.columns["subset"])
