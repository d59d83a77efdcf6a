"""How selection depends on the length of responses: whole ones, and their first L tokens."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.expected import (
    FROM_GOLD,
    MAJORITY,
    WEIGHTED,
    ValueOf,
    expect,
    scores_of,
    unknown_gold,
)
from bestofn.analysis.findings import at
from bestofn.dataset.pools import cut_name, has_scores
from bestofn.estimators import Interval, best_of_n, unpaired_difference
from bestofn.rewards.baselines import Unit, length, length_unit
from bestofn.types import Pool

Array = NDArray[np.float64]

CUT = re.compile(r"(.+)@(\d+)")


@dataclass(frozen=True, slots=True)
class CutCurves:
    """What a reward selects when it sees only the first L tokens of each candidate.

    Attributes:
        full: `[limits, ns]`, gold of the full candidate that is selected by its first L tokens.
        cut: `[limits, ns]`, gold of the cut candidate itself, over prompts where all cuts have
            one; None where it was not scored.
        whole: `[ns]`, gold of what is selected by whole responses.
        difference: `[limits]`, `full` minus `whole` at the largest N, paired by prompt.
        computed_tokens: `[limits]`, tokens that the model computed for these scores, per prompt.
        separate_tokens: `[limits]`, tokens of the same requests without a prefix cache.
        enough: The smallest limit from which on `difference` stays above -margin, at the lower end
            of its interval; None if no limit does.
        margin: See `enough`; in the unit of gold.
    """

    full: Interval
    cut: Interval | None
    whole: Interval
    difference: Interval
    computed_tokens: Array
    separate_tokens: Array
    enough: int | None
    margin: float


class LengthAnalysis:
    """Length and selection, for the pools of a scaling curve.

    Lengths are in tokens, all of them in characters if any candidate has no token count.

    Args:
        curve: Has pools, sizes, proxies and the settings of the bootstrap.
        margin: How much less gold counts as the same.

    Attributes:
        limits: Those that the pools have scores for, ascending.
        cut_share: `[limits]`, share of the candidates that are longer, so that the limit cuts them;
            NaN where not all have a token count.
        cuts: By reward.
        lacking: Rewards that are left out of `cuts`, with the score that they lack.
        longer: By proxy, mean concordance on the half of the prompts with longer responses (above
            the median prompt's mean length) minus that on the other half.
        spearman: By proxy and for gold, rank correlation with length within prompts, over those
            that have one.
        selected_length: By proxy, `[ns]`, length of the selected candidate.
        unit: "tokens" or "characters".
        counted: Share of the candidates that have a token count, of those that were drawn.
        pool_length: Mean length of a candidate.
        beyond_length: By proxy, gold at the largest N minus that of choosing by length alone, in
            the direction that the proxy leans to.
    """

    def __init__(self, curve: ScalingCurve, margin: float = 0.02) -> None:
        self.curve, self.margin = curve, margin
        self.names = [
            name
            for name in (c.name for c in curve.curves)
            if name not in (*FROM_GOLD, MAJORITY) and not name.startswith(WEIGHTED)
        ]
        pools = [pool for pools_of_seed in curve.pools for pool in pools_of_seed]
        self.unit, self.counted = _unit(pools)
        self._lengths_of = partial(_lengths, unit=self.unit)
        self.limits, rewards, self.lacking = _limits(pools, curve.gold)
        every = np.array([n for pool in pools for n in self._lengths_of(pool)])
        known = self.unit == "tokens"
        self.cut_share = np.array([(every > n).mean() if known else nan for n in self.limits])
        self.cuts = {name: self._cut_curves(name) for name in rewards}
        means = [[np.mean(self._lengths_of(p)) for p in seed] for seed in curve.pools]
        self._lengths = np.array(means).mean(0)
        self.pool_length = float(self._lengths.mean())
        self.longer = {name: self._longer(name) for name in self.names}
        self.spearman = {
            name: self._mean(self._per_prompt(partial(spearman, name=name, unit=self.unit)))
            for name in (*self.names, curve.gold)
        }
        self.selected_length = {
            name: curve.interval(self._expect(name, self._lengths_of)) for name in self.names
        }
        self.beyond_length = {name: self._beyond_length(name) for name in self.names}

    def _expect(self, proxy: str, value: str | ValueOf) -> Array:
        """`[seeds, prompts, ns]`, the expected value of what a proxy selects."""
        return self._expect_in(self.curve.pools, proxy, value)

    def _expect_in(
        self, seeds: Sequence[Sequence[Pool]], proxy: str, value: str | ValueOf
    ) -> Array:
        return np.array([expect(pools, proxy, value, self.curve.ns).gold for pools in seeds])

    def _per_prompt(self, measure: Callable[[Pool], float]) -> Array:
        """`[prompts]`, the mean of a measure over the seeds that have it, NaN where none has."""
        rows = np.array([[*map(measure, pools)] for pools in self.curve.pools])
        known = ~np.isnan(rows)
        total = np.where(known, rows, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), nan)

    def _mean(self, values: Array) -> Interval:
        """The mean of `[prompts]` over those that have a value."""
        return at(self.curve.interval(values[None, :, None]), 0)

    def _cut_curves(self, reward: str) -> CutCurves:
        curve, gold = self.curve, self.curve.gold
        names = [cut_name(reward, limit) for limit in self.limits]
        full = [self._expect(name, gold) for name in names]
        whole = self._expect(reward, gold)
        gaps = np.concatenate([(part - whole)[:, :, -1:] for part in full], axis=2)
        difference = curve.interval(gaps)
        good = difference.low >= -self.margin
        tokens = np.array([_tokens(curve.pools, name) for name in names])
        return CutCurves(
            full=self._stacked(full),
            cut=self._cut_gold(reward),
            whole=curve.interval(whole),
            difference=difference,
            computed_tokens=tokens[:, 0],
            separate_tokens=tokens[:, 1],
            enough=next((n for i, n in enumerate(self.limits) if good[i:].all()), None),
            margin=self.margin,
        )

    def _cut_gold(self, reward: str) -> Interval | None:
        """Gold of the cut candidates themselves, over prompts where all of them have it."""
        seeds, names = self.curve.pools, [cut_name(self.curve.gold, n) for n in self.limits]
        if not all(has_scores(pool, name) for pools in seeds for pool in pools for name in names):
            return None
        known = [
            place
            for place in range(self.curve.prompts)
            if not any(unknown_gold(pools[place], name) for pools in seeds for name in names)
        ]
        if not known:
            return None
        kept = [[pools[place] for place in known] for pools in seeds]
        limits = zip(self.limits, names, strict=True)
        return self._stacked([self._expect_in(kept, cut_name(reward, n), g) for n, g in limits])

    def _stacked(self, parts: Sequence[Array]) -> Interval:
        """`[limits, ns]` from one `[seeds, prompts, ns]` for each limit."""
        interval = self.curve.interval(np.concatenate(parts, axis=2))
        shape = (len(parts), len(self.curve.ns))
        return Interval(*(getattr(interval, f).reshape(shape) for f in ("mean", "low", "high")))

    def _longer(self, name: str) -> Interval:
        curve = self.curve
        rates = self._per_prompt(partial(concordance, name=name, gold=curve.gold))
        lengths, rates = self._lengths[~np.isnan(rates)], rates[~np.isnan(rates)]
        longer = lengths > np.median(lengths) if lengths.size else np.array([], bool)
        if not longer.any():
            return self._mean(np.array([nan]))
        return unpaired_difference(
            rates[longer],
            rates[~longer],
            resamples=curve.resamples,
            level=curve.level,
            seed=curve.seed,
        )

    def _beyond_length(self, name: str) -> Interval:
        """The longest candidate or, where the proxy leans that way, the shortest is chosen."""
        curve, sign = self.curve, -1.0 if float(self.spearman[name].mean) < 0 else 1.0
        gaps = []
        for pools, own in zip(curve.pools, curve.gold_of(name)[:, :, -1:], strict=True):
            by_length = [
                best_of_n(
                    [[sign * n for n in self._lengths_of(pool)]],
                    [scores_of(pool, curve.gold)],
                    curve.ns[-1:],
                )
                for pool in pools
            ]
            gaps.append(own - np.concatenate(by_length))
        return at(curve.interval(np.array(gaps)), 0)


def concordance(pool: Pool, name: str, gold: str) -> float:
    """How often the better of two candidates of a prompt has the higher score.

    Over all pairs whose gold values differ; equal scores count half, a failed score is below any
    other. NaN if there is no such pair. For a gold that is right or wrong this is the area under
    the ROC curve.
    """
    truth = np.array(scores_of(pool, gold))
    scores = np.nan_to_num(np.array(scores_of(pool, name)), nan=-np.inf)
    better = truth[:, None] > truth[None, :]
    if not better.any():
        return nan
    above = (scores[:, None] > scores[None, :]) + 0.5 * (scores[:, None] == scores[None, :])
    return float(above[better].mean())


def spearman(pool: Pool, name: str, unit: Unit | None = None) -> float:
    """Rank correlation of a score with length among a prompt's candidates, failed ones left out.

    NaN where either is the same for all. Without a unit it is the one that the pool allows.
    """
    scores = np.array(scores_of(pool, name))
    known = ~np.isnan(scores)
    if known.sum() < 2:
        return nan
    lengths = _lengths(pool, unit or length_unit(pool.candidates))
    ranks = rankdata([scores[known], np.array(lengths)[known]], axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = float(np.sqrt((centred**2).sum(axis=1).prod()))
    return float((centred[0] * centred[1]).sum()) / scale if scale else nan


def _unit(pools: Sequence[Pool]) -> tuple[Unit, float]:
    """What all lengths are measured in, and the share of the candidates that count tokens."""
    drawn = [c for pool in pools for c in pool.candidates if c.finish_reason != "error"]
    counted = sum(candidate.token_count is not None for candidate in drawn)
    return length_unit(drawn), counted / max(len(drawn), 1)


def _lengths(pool: Pool, unit: Unit) -> list[float]:
    return [float(length(candidate, unit)) for candidate in pool.candidates]


def _limits(pools: Sequence[Pool], gold: str) -> tuple[list[int], list[str], dict[str, str]]:
    """The limits that there are, the rewards that have them all, and what the others lack."""
    every = [candidate.scores.keys() for pool in pools for candidate in pool.candidates]
    scores = set(every[0]).intersection(*every[1:])
    named = dict.fromkeys(name for names in every for name in names)
    found = [match for name in named if (match := CUT.fullmatch(name))]
    limits = sorted({int(match[2]) for match in found})
    names = list(dict.fromkeys(match[1] for match in found if match[1] != gold))
    lacking = {
        name: missing
        for name in names
        for missing in [cut_name(name, limit) for limit in limits][::-1]
        if missing not in scores
    }
    lacking |= {name: name for name in names if name not in scores}
    return limits, [name for name in names if name not in lacking], lacking


def _tokens(seeds: Sequence[Sequence[Pool]], name: str) -> tuple[float, float]:
    """Tokens computed for a score and tokens asked for, per prompt."""
    pools = [pool for pools in seeds for pool in pools]
    usages = [candidate.scores[name].usage for pool in pools for candidate in pool.candidates]
    computed = sum(usage.computed_tokens for usage in usages)
    return computed / len(pools), (computed + sum(u.cached_tokens for u in usages)) / len(pools)
