"""Accuracies of rewards by subset, with intervals and differences, from scored items."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from math import inf, isnan, nan, tanh
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bestofn.analysis.proxies import scores_of
from bestofn.estimators import (
    Interval,
    Pairs,
    balanced,
    gain_percent,
    known_interval,
    pair_shares,
    resampled_stratum_means,
    stratum_means,
)
from bestofn.types import Pool

Array = NDArray[np.float64]
Pools = Sequence[Sequence[Pool]]
Margins = tuple[float, float]
"""Of one item, NaN where a score failed: from its worst right response to its best one, and from
its best wrong response to its worst right one."""

GOLD = "gold"
"""The score that says which candidates are right: 1, or else 0."""
TIES = "Ties"
MEAN = "mean"
"""The mean over subsets, where the name of a subset is expected."""
CONVENTIONS = STRICT, CREDIT = "strict", "credit"
BALANCED = "balanced"
"""See `bestofn.estimators.balanced`."""
MEASURES = (*CONVENTIONS, BALANCED)
LONGER, SHORTER = "right_longer", "right_shorter"
SIDES = (LONGER, SHORTER, BALANCED)
WEIGHTS = np.array([0.30, 0.30, 0.20, 0.20, 0.01])  # of the terms of the score of Ties


class Outcome(NamedTuple):
    """The outcome of one reward on one item.

    Attributes:
        strict: 1 where a single response has the best value and it is a right one; ties and items
            of which every score failed are wrong.
        credit: The share of right ones among the responses with the best value: what a fair draw
            among them would give in expectation. Where every score failed, among all of them.
    """

    strict: float
    credit: float
    tie_rate: float  # 1 where several share the best value
    failure_rate: float  # the share of scores that failed
    all_failed: float  # 1 where every score did
    chance: float  # the share of right ones among all responses


FIELDS = (*Outcome._fields, *Pairs._fields)
_FIELD = {name: place for place, name in enumerate(FIELDS)}


def outcome(values: Sequence[float], right: Sequence[bool]) -> Outcome:
    """The outcome of these scores, NaN where one failed; a failed one loses to any value."""
    failures = float(np.mean(np.isnan(values)))
    chance = sum(right) / len(right)
    if failures == 1:
        return Outcome(0.0, chance, 0.0, failures, 1.0, chance)
    best = np.nanmax(values)
    among = [ok for value, ok in zip(values, right, strict=True) if value == best]
    alone = len(among) == 1
    credit = sum(among) / len(among)
    return Outcome(float(alone and among[0]), credit, float(not alone), failures, 0.0, chance)


def pairs(values: Sequence[float], right: Sequence[bool], lengths: Sequence[int]) -> Pairs:
    """The pairs of a right and a wrong response, of which a failed score loses to any value."""
    known = [-inf if isnan(value) else value for value in values]
    everyone = list(zip(known, right, lengths, strict=True))
    return pair_shares(
        ((value > other) + 0.5 * (value == other), length - its)
        for (value, ok, length), (other, also, its) in permutations(everyone, 2)
        if ok and not also
    )


def outcomes(pools: Pools, name: str) -> Array:
    """What scores of that name come to, each a mean over seeds: `[items, FIELDS]`."""

    def found(pool: Pool) -> tuple[float, ...]:
        values, right = scores_of(pool, name), _right(pool)
        lengths = [len(candidate.text) for candidate in pool.candidates]
        return (*outcome(values, right), *pairs(values, right, lengths))

    means: Array = np.array([[found(pool) for pool in rows] for rows in pools]).mean(axis=0)
    return means


def measured(sampled: Array, measure: str) -> Array:
    """One of the measures from means over items, `[..., columns, FIELDS]`: `[..., columns]`.

    NaN where no pair tells; the last column is the mean over the subsets that know.
    """
    if measure in _FIELD:
        return sampled[..., _FIELD[measure]]
    found = balanced(sampled[..., -len(Pairs._fields) :])[..., SIDES.index(measure)]
    subsets = found[..., :-1]
    known = ~np.isnan(subsets)
    count = known.sum(axis=-1)
    total = np.where(known, subsets, 0.0).sum(axis=-1)
    found[..., -1] = np.where(count > 0, total / np.maximum(count, 1), nan)
    return found


def _right(pool: Pool) -> list[bool]:
    return [value > 0 for value in scores_of(pool, GOLD)]


@dataclass(frozen=True, slots=True)
class Line:
    """One reward, with one model."""

    label: str  # the name of its scores
    reward: str  # the reward's own label
    kind: str  # what the reward is called in the registry
    model: str | None  # that scored, where there are several and one of them did


@dataclass(frozen=True, slots=True)
class Accuracy(Line):
    """The estimates of one line; resamples are shared with all other lines."""

    # And "mean": the fields of `Outcome`, and intervals of the measures; NaN where no pair tells.
    subsets: dict[str, dict[str, Any]]
    ties: Interval | None  # the score of the subset Ties, None without its items
    ties_failure_rate: float  # 0 without its items
    tokens: float  # computed by the model, per item and seed
    seconds: float  # per item and seed
    counts: Counter[str]  # of a judge's calls in all, such as picks of the first place
    sampled: Array = field(repr=False, compare=False)
    """`[1 + resamples, columns, FIELDS]`, the means and those of resampled items."""
    sampled_ties: Array = field(repr=False, compare=False)
    """`[1 + resamples]`, the same for the score of Ties; NaN without its items."""

    @property
    def all_failed(self) -> bool:
        """Whether every score outside Ties failed."""
        return bool(self.subsets) and self.subsets[MEAN]["failure_rate"] == 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One line against another, by subset and "mean", on the same resamples."""

    a: str
    b: str
    convention: str
    minus: dict[str, Interval]
    gain: dict[str, Interval | None]  # by how many percent a is more than b; None where b is 0


class Evaluation:
    """Accuracies of scored items.

    Args:
        pools: `[seeds][items]`, the same items for each seed, in the same order.
        lines: What to estimate.
        over_models: Whether to estimate the mean over models of each reward as well.
        resamples, level, seed: Of the bootstrap, which draws items within their subsets.

    Attributes:
        subsets: The number of items by subset, without Ties.
        columns: The subsets and their mean; empty where there is only Ties.
        chance: The accuracy of a random choice, by column.
        accuracies: Of the lines.
        overall: Of each reward; with `over_models` its mean over models, under its own label.
        differences: Of each of `overall` to each other one, in each measure.
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
        self.models = list(dict.fromkeys(line.model for line in lines if line.model))
        self.overall = self.accuracies = [self._of_scores(line) for line in lines]
        if over_models:
            self.overall = [
                *map(self._mean_over_models, dict.fromkeys(line.reward for line in lines))
            ]
        self.chance = {name: e["chance"] for name, e in self.overall[0].subsets.items()}
        self.differences = [
            self._difference(a, b, convention)
            for a, b in permutations(self.overall, 2)
            for convention in MEASURES
            if self.subsets
        ]

    def _of_scores(self, line: Line) -> Accuracy:
        """Of the scores of the line's name, on all items."""
        name, settings = line.label, {"resamples": self.resamples, "seed": self._seed}
        sampled, failed = np.empty((1 + self.resamples, 0, len(FIELDS))), 0.0
        ties = np.full((1, 1 + self.resamples), nan)
        if self.subsets:
            values = outcomes(self._plain, name)
            draws = resampled_stratum_means(values, self._strata, **settings)
            sampled = np.concatenate([[stratum_means(values, self._strata)], draws])
        if self.ties_items:
            ties = np.array([ties_score(rows, name, **settings) for rows in self._ties])
            failed = fmean(
                isnan(v) for rows in self._ties for p in rows for v in scores_of(p, name)
            )
        rows = [pool for pools in self._pools for pool in pools]
        scores = [c.scores[name] for pool in rows for c in pool.candidates]
        counts = _total(score.counts for score in scores)
        if any(count.startswith("place_") for count in counts):
            # Places that were never picked are places too.
            largest = max(len(pool.candidates) for pool in rows)
            counts.update({f"place_{place}": 0 for place in range(1, largest + 1)})
        costs = {
            "ties_failure_rate": failed,
            "tokens": sum(score.usage.computed_tokens for score in scores) / len(rows),
            "seconds": sum(pool.seconds.get(name, 0.0) for pool in rows) / len(rows),
        }
        return self._accuracy(line, sampled, ties, counts=counts, **costs)

    def _mean_over_models(self, reward: str) -> Accuracy:
        parts = [a for a in self.accuracies if a.reward == reward]
        sampled = np.mean([part.sampled for part in parts], axis=0)
        ties = np.array([part.sampled_ties for part in parts])
        names = ("ties_failure_rate", "tokens", "seconds")
        costs = {name: fmean(getattr(part, name) for part in parts) for name in names}
        counts = _total(part.counts for part in parts)
        line = Line(reward, reward, parts[0].kind, None)
        return self._accuracy(line, sampled, ties, counts=counts, **costs)

    def _accuracy(self, line: Line, sampled: Array, ties: Array, **costs: Any) -> Accuracy:
        by_subset = {}
        for place, name in enumerate(self.columns):
            means = dict(zip(Outcome._fields, sampled[0, place].tolist(), strict=False))
            measures = {
                measure: self._interval(measured(sampled, measure)[:, place])
                for measure in (*MEASURES, LONGER, SHORTER)
            }
            by_subset[name] = means | measures
        mean = ties.mean(axis=0)
        mean[0] = fmean(ties[:, 0])
        of_ties = self._interval(mean) if self.ties_items else None
        who = (line.label, line.reward, line.kind, line.model)
        return Accuracy(*who, by_subset, of_ties, sampled=sampled, sampled_ties=mean, **costs)

    def _interval(self, sampled: Array) -> Interval:
        nothing: Any = nan
        unknown = Interval(nothing, nothing, nothing)
        return known_interval(sampled[0], sampled[1:], self.level) or unknown

    def _difference(self, a: Accuracy, b: Accuracy, convention: str) -> Difference:
        minus, gain = {}, {}
        for place, name in enumerate(self.columns):
            x, y = (measured(side.sampled, convention)[:, place] for side in (a, b))
            minus[name] = self._interval(x - y)
            known = not isnan(minus[name].mean)
            gain[name] = (
                gain_percent(float(x[0]), float(y[0]), x[1:], y[1:], self.level) if known else None
            )
        return Difference(a.label, b.label, convention, minus, gain)


def _subset(pool: Pool) -> str:
    return str(pool.prompt.columns["subset"])


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for part in counts:
        total.update(part)  # which keeps counts of 0
    return total


# --- Ties -----------------------------------------------------------------------------------------


def ties_score(pools: Sequence[Pool], name: str, *, resamples: int = 2000, seed: int = 0) -> Array:
    """The score of the subset and the same of resampled pairs, `[1 + resamples]`.

    Its items come in pairs: "ref:K" has one right response, "tied:K" has several to a like prompt.
    0.30 accuracy on tied items + 0.30 accuracy on reference items + 0.20 share of pairs whose tied
    item's right responses differ by less than what parts them from the wrong ones + 0.20 the same
    with the smaller distance of both items + 0.01 mean margin. An item with a failed score is not
    accurate, and its margins are no evidence.

    Source: the code of allenai/reward-bench, `process_single_model`.
    """
    sides: dict[str, dict[str, Margins]] = {"ref": {}, "tied": {}}
    for pool in pools:
        kind, _, number = str(pool.prompt.columns["item"]).partition(":")
        sides[kind][number] = _margins(pool, name)
    numbers = dict.fromkeys([*sides["ref"], *sides["tied"]])
    terms = np.array([_terms(*(sides[k].get(number) for k in sides)) for number in numbers])
    known = ~np.isnan(terms)
    pairs = len(terms)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples)
    # The first row is all pairs once. Each term is a mean over the pairs that have it, 0 of none.
    counts = np.vstack([np.ones((1, pairs)), counts])
    having = counts @ known.astype(np.float64)
    totals = counts @ np.where(known, terms, 0.0)
    scores: Array = np.divide(totals, having, out=np.zeros_like(having), where=having > 0) @ WEIGHTS
    return scores


def _margins(pool: Pool, name: str) -> Margins:
    values, right = np.array(scores_of(pool, name)), np.array(_right(pool))
    if np.isnan(values).any():
        return nan, nan
    worst = float(values[right].min())
    return float(values[right].max()) - worst, worst - float(values[~right].max())


def _terms(ref: Margins | None, tied: Margins | None) -> tuple[float, ...]:
    """What a pair adds to each term, in the order of WEIGHTS; NaN where it has no such term.

    A comparison with NaN is false, and so counts against the item.
    """
    accurate = [nan if side is None else float(side[1] > 0) for side in (tied, ref)]
    if ref is None or tied is None:
        return (*accurate, nan, nan, nan)
    within, above = tied
    both = float(np.minimum(ref[1], above))
    margin = tanh(both / within - 1) if within else float(np.sign(both))
    apart = float(above > within), float(both > within)
    return (*accurate, *apart, 0.0 if isnan(margin) else margin)
