"""How selection depends on the length of responses: whole ones, and their first L tokens."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan, sqrt

import numpy as np
from scipy.stats import rankdata

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import at
from bestofn.analysis.proxies import ORACLE, Array, scores_of, unknown_gold, values_of
from bestofn.dataset.pools import cut_name
from bestofn.estimators import Interval, best_of_n, unpaired_difference
from bestofn.rewards.baselines import Unit, length
from bestofn.types import Pool

COLLINEAR = 1e-9  # what is left of the ranks' variance beside length; with less there is nothing
CUT = re.compile(r"(.+)@(\d+)")


@dataclass(frozen=True, slots=True)
class CutCurves:
    """What a reward selects when it sees only the first L tokens of each candidate.

    `[limits, ns]`, `whole` `[ns]`, the others `[limits]`; tokens are per prompt.
    """

    full: Interval  # gold of the full candidate that is selected by its first L tokens
    cut: Interval | None  # gold of the cut one, over prompts where all have it; None if none has
    whole: Interval  # gold of what is selected by whole responses
    difference: Interval  # `full` minus `whole` at the largest N, paired by prompt
    computed_tokens: Array  # that the model computed for these scores
    separate_tokens: Array  # of the same requests without a prefix cache
    enough: int | None  # the limit from which on the lower end of `difference` is above -margin
    margin: float


class LengthAnalysis:
    """Length and selection, for a curve's pools; a loss of gold within `margin` does not count.

    Attributes:
        counted: Share of the candidates that have a token count, of those that were drawn.
        limits: Those that the pools have scores for, ascending.
        cut_share: `[limits]`, share of the candidates that a limit cuts; NaN in characters.
        cuts: By reward.
        lacking: Rewards that are left out of `cuts`, with the score that they lack.
        longer: By proxy, mean concordance on the half of the prompts with longer responses (above
            the median prompt's mean length) minus that on the other half.
        spearman: By proxy and for gold, mean rank correlation with length within prompts.
        given_length: By proxy, mean partial rank correlation with gold within prompts, where length
            is held fixed: what the proxy knows of gold besides length.
        selected_length: By proxy, `[ns]`.
        beyond_length: By proxy, gold at the largest N minus that of choosing by length alone, in
            the direction that the proxy leans to.
    """

    def __init__(self, curve: ScalingCurve, margin: float = 0.02) -> None:
        self.curve, self.margin, self.unit = curve, margin, curve.unit
        own = (proxy.name for proxy in curve.curves if proxy.proxy is not None)
        self.names = [name for name in own if name != ORACLE]
        self.pools = [pool for pools in curve.pools for pool in pools]
        drawn = [c for pool in self.pools for c in pool.candidates if c.whole]
        self.counted = sum(c.token_count is not None for c in drawn) / max(len(drawn), 1)
        self.limits, rewards, self.lacking = limits_of(self.pools, curve.gold)
        every = np.array([n for pool in self.pools for n in lengths_of(pool, self.unit)])
        known = self.unit == "tokens"
        self.cut_share = np.array([(every > n).mean() if known else nan for n in self.limits])
        self.cuts = {name: self._cut_curves(name) for name in rewards}
        means = [[np.mean(lengths_of(p, self.unit)) for p in seed] for seed in curve.pools]
        self._lengths = np.array(means).mean(0)
        self.pool_length = float(self._lengths.mean())
        self.longer = {name: self._longer(name) for name in self.names}
        self.spearman = {name: self._spearman(name) for name in (*self.names, curve.gold)}
        self.given_length = {name: self._given_length(name) for name in self.names}
        by_unit = partial(lengths_of, unit=self.unit)
        self.selected_length = {
            n: curve.interval(curve.expect(n, by_unit).gold) for n in self.names
        }
        self.beyond_length = {name: self._beyond_length(name) for name in self.names}

    def _per_prompt(self, measure: Callable[[Pool], float]) -> Array:
        """`[prompts]`, the mean of a measure over the seeds that have it, NaN where none has."""
        rows = np.array([[*map(measure, pools)] for pools in self.curve.pools])
        known = ~np.isnan(rows)
        total = np.where(known, rows, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), nan)

    def _cut_curves(self, reward: str) -> CutCurves:
        curve, limits = self.curve, self.limits
        names = [cut_name(reward, limit) for limit in limits]
        full, whole = [curve.expect(name).gold for name in names], curve.expect(reward).gold
        difference = curve.interval(
            np.concatenate([(part - whole)[:, :, -1:] for part in full], axis=2)
        )
        good = difference.low >= -self.margin
        usages = [[c.scores[n].usage for p in self.pools for c in p.candidates] for n in names]
        computed = np.array([sum(usage.computed_tokens for usage in part) for part in usages])
        cached = np.array([sum(usage.cached_tokens for usage in part) for part in usages])
        # Gold of the cut candidates themselves, over prompts where all of them have it.
        golds = [cut_name(curve.gold, limit) for limit in limits]
        known = [
            place
            for place in range(curve.prompts)
            if not any(unknown_gold(pools[place], gold) for pools in curve.pools for gold in golds)
        ]
        kept = [[pools[place] for place in known] for pools in curve.pools]
        cut = [
            curve.expect(name, partial(scores_of, name=gold), kept).gold
            for name, gold in zip(names, golds, strict=True)
            if known
        ]
        return CutCurves(
            full=self._stacked(full),
            cut=self._stacked(cut) if cut else None,
            whole=curve.interval(whole),
            difference=difference,
            computed_tokens=computed / len(self.pools),
            separate_tokens=(computed + cached) / len(self.pools),
            enough=next((n for i, n in enumerate(limits) if good[i:].all()), None),
            margin=self.margin,
        )

    def _stacked(self, parts: Sequence[Array]) -> Interval:
        """`[limits, ns]` from one `[seeds, prompts, ns]` for each limit."""
        interval = self.curve.interval(np.concatenate(parts, axis=2))
        shape = (len(parts), len(self.curve.ns))
        return Interval(*(getattr(interval, f).reshape(shape) for f in ("mean", "low", "high")))

    def _longer(self, name: str) -> Interval:
        rates = self._per_prompt(lambda p: concordance(p, name, self.curve.gold, self.unit))
        lengths, rates = self._lengths[~np.isnan(rates)], rates[~np.isnan(rates)]
        longer = lengths > np.median(lengths) if lengths.size else np.array([], bool)
        if not longer.any():
            return Interval(*np.full(3, nan))
        return unpaired_difference(rates[longer], rates[~longer], **self.curve.bootstrap)

    def _spearman(self, name: str) -> Interval:
        return self._mean(lambda pool: spearman(pool, name, self.unit))

    def _given_length(self, name: str) -> Interval:
        gold = self.curve.gold
        return self._mean(lambda pool: partial_spearman(pool, name, gold, self.unit))

    def _mean(self, measure: Callable[[Pool], float]) -> Interval:
        """Over the prompts that have the measure."""
        return at(self.curve.interval(self._per_prompt(measure)[None, :, None]), 0)

    def _beyond_length(self, name: str) -> Interval:
        """The longest candidate or, where the proxy leans that way, the shortest is chosen."""
        curve, sign = self.curve, -1.0 if float(self.spearman[name].mean) < 0 else 1.0

        def by_length(pool: Pool) -> Array:
            lengths = [sign * n for n in lengths_of(pool, self.unit)]
            (found,) = best_of_n([lengths], [scores_of(pool, curve.gold)], curve.ns[-1:])
            return np.asarray(found)

        chosen = np.array([[*map(by_length, pools)] for pools in curve.pools])
        return at(curve.interval(curve.gold_of(name)[:, :, -1:] - chosen), 0)


def lengths_of(pool: Pool, unit: Unit) -> list[float]:
    return [float(length(candidate, unit)) for candidate in pool.candidates]


def concordance(pool: Pool, name: str, gold: str, unit: Unit = "tokens") -> float:
    """How often the better of two candidates of a prompt has the higher score.

    Over all pairs whose gold values differ; equal scores count half, a failed score is below any
    other. NaN if there is no such pair. For a gold that is right or wrong this is the area under
    the ROC curve. `unit` is that of "longest" and "shortest".
    """
    truth = np.array(scores_of(pool, gold))
    values = np.nan_to_num(np.array(values_of(pool, name, unit)), nan=-np.inf)
    better = truth[:, None] > truth[None, :]
    if not better.any():
        return nan
    above = (values[:, None] > values[None, :]) + 0.5 * (values[:, None] == values[None, :])
    return float(above[better].mean())


def spearman(pool: Pool, name: str, unit: Unit) -> float:
    """Rank correlation of a score with length among a prompt's candidates, failed ones left out.

    NaN where either is the same for all.
    """
    ranks = _ranks(values_of(pool, name, unit), lengths_of(pool, unit))
    return nan if ranks is None else float(ranks[0] @ ranks[1])


def partial_spearman(pool: Pool, name: str, gold: str, unit: Unit) -> float:
    """Rank correlation of a score with gold where length is held fixed, failed ones left out.

    NaN with fewer than four of them, where any of the three is the same for all, and where the
    score or gold follows from the length.
    """
    ranks = _ranks(values_of(pool, name, unit), scores_of(pool, gold), lengths_of(pool, unit))
    if ranks is None or ranks.shape[1] < 4:
        return nan
    own, truth, long = ranks
    scale = float((1 - (own @ long) ** 2) * (1 - (truth @ long) ** 2))
    left = float(own @ truth - (own @ long) * (truth @ long))
    return left / sqrt(scale) if scale > COLLINEAR else nan


def _ranks(*columns: Sequence[float]) -> Array | None:
    """Centred ranks of unit length, `[columns, known]`, of those that have a value in each.

    None where a column is the same for all.
    """
    values = np.array(columns)
    values = values[:, ~np.isnan(values).any(axis=0)]
    if values.shape[1] < 2:
        return None
    ranks = rankdata(values, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return centred / scale if scale.all() else None


def limits_of(pools: Sequence[Pool], gold: str) -> tuple[list[int], list[str], dict[str, str]]:
    """The limits that there are, the rewards that have them all, and what the others lack."""
    every = [candidate.scores.keys() for pool in pools for candidate in pool.candidates]
    scores = set(every[0]).intersection(*every[1:])
    named = dict.fromkeys(name for names in every for name in names)
    found = [match for name in named if (match := CUT.fullmatch(name))]
    limits = sorted({int(match[2]) for match in found})
    rewards = list(dict.fromkeys(match[1] for match in found if match[1] != gold))
    lacking = {
        reward: missing
        for reward in rewards
        for missing in [reward, *(cut_name(reward, limit) for limit in limits)][::-1]
        if missing not in scores
    }
    return limits, [reward for reward in rewards if reward not in lacking], lacking
