"""Accuracies of rewards by subset, with intervals and differences, from scored items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import isnan
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bestofn.estimators import (
    Interval,
    gain_percent,
    interval,
    resampled_stratum_means,
    stratum_means,
)
from bestofn.evals.rewardbench.items import MEAN, TIES, scores_of
from bestofn.evals.rewardbench.outcomes import FIELDS, Cost, outcomes
from bestofn.evals.rewardbench.ties import ties_score
from bestofn.types import Pool

Array = NDArray[np.float64]
Pools = Sequence[Sequence[Pool]]

STRICT, CREDIT = "strict", "credit"
CONVENTIONS = (STRICT, CREDIT)


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
    """Of one line on one subset, or in the mean over subsets.

    Attributes:
        strict: Accuracy where ties and items of which all scores failed are wrong.
        credit: Accuracy where a fair draw breaks ties.
        tie_rate: Share of items in which several responses share the best value.
        failure_rate: Share of scores that failed.
        all_failed: Share of items of which every score failed.
        chance: Accuracy of a random choice.
    """

    strict: Interval
    credit: Interval
    tie_rate: float
    failure_rate: float
    all_failed: float
    chance: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """All that is known of one line.

    Attributes:
        line: The line.
        by_subset: Its estimates, the last one under "mean"; empty where there is only Ties.
        ties: The score of the subset Ties, None without its items.
        ties_failures: The share of the scores of Ties that failed, 0 without its items.
        cost: What its scores cost.
    """

    line: Line
    by_subset: dict[str, Estimate]
    ties: Interval | None
    ties_failures: float
    cost: Cost


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
        self.seeds, self.resamples, self.level = len(pools), resamples, level
        self._seed = seed
        self._pools = pools
        self._plain = [[pool for pool in rows if _subset(pool) != TIES] for rows in pools]
        self._ties = [[pool for pool in rows if _subset(pool) == TIES] for rows in pools]
        of_items = [_subset(pool) for pool in self._plain[0]]
        self.subsets = {name: of_items.count(name) for name in dict.fromkeys(of_items)}
        self.ties_items = len(self._ties[0])
        self._strata = [[*self.subsets].index(name) for name in of_items]
        scored = {line: self._scored(line.label) for line in lines}
        self.accuracies = [self._accuracy(line, part) for line, part in scored.items()]
        if over_models:
            rewards = {line.reward: line.kind for line in lines}
            scored = {
                Line(reward, reward, kind): _mean(
                    [part for line, part in scored.items() if line.reward == reward]
                )
                for reward, kind in rewards.items()
            }
        self.overall = [self._accuracy(line, part) for line, part in scored.items()]
        self.differences = [
            self._difference(a, b, convention, scored)
            for a, b in permutations(scored, 2)
            for convention in CONVENTIONS
            if self.subsets
        ]

    @property
    def columns(self) -> list[str]:
        """The subsets and their mean; none where there is only Ties."""
        return [*self.subsets, MEAN] if self.subsets else []

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random choice, by column."""
        return {name: found.chance for name, found in self.overall[0].by_subset.items()}

    @property
    def models(self) -> list[str]:
        """Those that the lines name; none where there are not several."""
        return list(dict.fromkeys(a.line.model for a in self.accuracies if a.line.model))

    def _scored(self, name: str) -> "_Scored":
        """The scores of that name, on all items."""
        values = np.empty((0, len(FIELDS)))
        means, draws = values, np.empty((self.resamples, *values.shape))
        if self.subsets:
            values = outcomes(self._plain, name)
            means = stratum_means(values, self._strata)
            draws = resampled_stratum_means(
                values, self._strata, resamples=self.resamples, seed=self._seed
            )
        ties = [
            ties_score(rows, name, resamples=self.resamples, seed=self._seed)
            for rows in self._ties
            if rows
        ]
        scores = [score for rows in self._ties for pool in rows for score in scores_of(pool, name)]
        failed = fmean(isnan(score.value) for score in scores) if scores else 0.0
        return _Scored(means, draws, _mean_ties(ties), failed, Cost.of(self._pools, name))

    def _accuracy(self, line: Line, scored: "_Scored") -> Accuracy:
        by_subset = {}
        for place, name in enumerate(self.columns):
            means = dict(zip(FIELDS, scored.means[place].tolist(), strict=True))
            by_subset[name] = Estimate(
                strict=self._interval(scored, place, STRICT),
                credit=self._interval(scored, place, CREDIT),
                tie_rate=means["tie"],
                failure_rate=means["failures"],
                all_failed=means["all_failed"],
                chance=means["chance"],
            )
        ties = scored.ties and interval(*scored.ties, self.level)
        return Accuracy(line, by_subset, ties, scored.ties_failures, scored.cost)

    def _interval(self, scored: "_Scored", place: int, convention: str) -> Interval:
        column = FIELDS.index(convention)
        return interval(scored.means[place, column], scored.draws[:, place, column], self.level)

    def _difference(
        self, a: Line, b: Line, convention: str, scored: Mapping[Line, "_Scored"]
    ) -> Difference:
        column = FIELDS.index(convention)
        (x, x_draws), (y, y_draws) = (
            (scored[line].means[:, column], scored[line].draws[:, :, column]) for line in (a, b)
        )
        minus, gain = {}, {}
        for place, name in enumerate(self.columns):
            drawn = x_draws[:, place], y_draws[:, place]
            minus[name] = interval(x[place] - y[place], drawn[0] - drawn[1], self.level)
            gain[name] = gain_percent(float(x[place]), float(y[place]), *drawn, self.level)
        return Difference(a.label, b.label, convention, minus, gain)


@dataclass(frozen=True, slots=True)
class _Scored:
    """What one line's scores come to.

    Attributes:
        means: `[columns, FIELDS]`, by subset, their mean last.
        draws: `[resamples, columns, FIELDS]`, the same of resampled items.
        ties: The score of the subset Ties and `[resamples]` of it.
        ties_failures: The share of its scores that failed.
        cost: What the scores cost.
    """

    means: Array
    draws: Array
    ties: tuple[float, Array] | None
    ties_failures: float
    cost: Cost


def _mean(parts: Sequence[_Scored]) -> _Scored:
    """The mean over models; all share their resamples."""
    return _Scored(
        np.mean([part.means for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
        _mean_ties([part.ties for part in parts if part.ties is not None]),
        fmean(part.ties_failures for part in parts),
        Cost.mean([part.cost for part in parts]),
    )


def _mean_ties(parts: Sequence[tuple[float, Array]]) -> tuple[float, Array] | None:
    if not parts:
        return None
    return fmean(value for value, _ in parts), np.mean([draws for _, draws in parts], axis=0)


def _subset(pool: Pool) -> str:
    return str(pool.prompt.columns["subset"])
