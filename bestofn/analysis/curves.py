"""Scaling curves: how gold grows with N under each proxy, and which proxy is better."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isnan
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from bestofn.analysis.expected import (
    FROM_GOLD,
    MAJORITY,
    ORACLE,
    RANDOM,
    WEIGHTED,
    Answer,
    expect,
    unknown_gold,
)
from bestofn.dataset.pools import add, has_scores
from bestofn.errors import ConfigError
from bestofn.estimators import Interval, bootstrap_pools, kl_upper_bound
from bestofn.prompts import content_key
from bestofn.rewards.base import load_reward
from bestofn.rewards.baselines import length, length_unit
from bestofn.types import Pool, Score
from bestofn.verifiers.base import load_answer

Array = NDArray[np.float64]

LENGTHS = {"longest": 1.0, "shortest": -1.0}
BASELINES = (*LENGTHS, "mean-logprob")
"""Proxies that a pool's candidates carry in themselves."""
DIFFER_MOST = 10  # prompts named for each pair of proxies
EQUAL = 1e-9  # two expectations that are closer are a tie


@dataclass(frozen=True, slots=True)
class ProxyCurve:
    """One proxy over all prompts; means over prompts and over pool seeds.

    Attributes:
        name: The proxy's.
        gold: `[ns]`, gold value of the selected candidate.
        gain: `[ns]`, the same minus that of a random candidate, paired by prompt.
        noise: `[ns]`, `gold` with an interval for the same prompts with other pools; None if there
            is only one pool a prompt.
        proxy: `[ns]`, the proxy's own value of the selected candidate; None where it has none.
        after_peak: Gold at the largest N minus gold at the N where it is highest, and that N:
            below zero, more candidates made it worse.
        failures: `[ns]`, share of draws in which no candidate has a score.
        ties: `[ns]`, share of draws with several best candidates.
        failed_scores: Share of the candidates that have no score.
        generated_tokens: `[ns]`, tokens drawn for a prompt; None where they are not known.
        scored_tokens: `[ns]`, tokens that the scoring model computes for a prompt.
        seconds: `[ns]`, wall-clock time for a prompt at the throughput of the run that made the
            pool; None where it is not known.
        monte_carlo_error: `[ns]`, standard error of simulation in `gold`, None where it is exact.
    """

    name: str
    gold: Interval
    gain: Interval
    noise: Interval | None
    proxy: Interval | None
    after_peak: tuple[int, Interval]
    failures: Array
    ties: Array
    failed_scores: float
    generated_tokens: Array | None
    scored_tokens: Array
    seconds: Array | None
    monte_carlo_error: Array | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Gold under proxy `a` minus gold under proxy `b`, on the same resamples.

    Attributes:
        a: A proxy.
        b: Another.
        gold: `[ns]`, the difference.
        win: `[ns]`, share of prompts on which a's expected gold is higher.
        tie: `[ns]`, share on which they are equal.
        lose: `[ns]`, share on which b's is higher.
        most: Prompts that differ most at the largest N, by id.
    """

    a: str
    b: str
    gold: Interval
    win: Interval
    tie: Interval
    lose: Interval
    most: list[tuple[str, float]]


class ScalingCurve:
    """Gold against N for each proxy, from pools of candidates with scores.

    Every number is an expectation over all subsets of size N of a prompt's pool, drawn without
    replacement. Intervals resample prompts, each with its pool or pools: they cover the scatter of
    prompts and of the draws of their pools, and not another generator, reward model or data set.

    Args:
        pools: One pool for each prompt, or several such lists, one for each seed.
        proxies: What selects: names of scores, or "random", "oracle", "longest", "shortest",
            "mean-logprob", "majority", "weighted:SCORE". By default all scores that the pools have
            and all of these that need none. Lengths are in tokens, for all pools in characters if
            any candidate has no token count.
        gold: The score that says how good a candidate is; a prompt that has a candidate without it
            is left out and named.
        ns: Sizes N, by default powers of two up to the smallest pool's size. Prompts with fewer
            candidates than the largest are left out and named.
        answer: What votes compare, by default the stripped text: a function of the response, or
            the name of a verifier that reads it, such as "math".
        resamples: Of the bootstrap.
        level: Of the intervals.
        seed: Of the resampling, and of votes that have to be simulated.
        iid: Whether the candidates are independent draws from one model; if not, there is no
            bound on the KL divergence.

    Attributes:
        pools: The pools that were used, one list for each seed, prompts in the same order; copies,
            which have the scores of all proxies.
        ns: The sizes.
        chance: `[seeds, prompts, ns]`, gold of a random candidate.
        curves: A ProxyCurve for each proxy.
        differences: A Difference for each pair of proxies but the oracle and the random choice.
        kl_bound: `[ns]`, or None.
        left_out: Prompts that were left out, by id, and why.

    Raises:
        ConfigError: there is nothing to estimate from, a score is missing, or an N is too large.
    """

    def __init__(
        self,
        pools: Sequence[Pool] | Sequence[Sequence[Pool]],
        *,
        proxies: Sequence[str] = (),
        gold: str = "gold",
        ns: Sequence[int] = (),
        answer: str | Answer = str.strip,
        resamples: int = 2000,
        level: float = 0.95,
        seed: int = 0,
        iid: bool = True,
    ) -> None:
        self.gold = gold
        reads = load_answer(answer)
        self.level, self.resamples, self.seed = level, resamples, seed
        usable, self.left_out = _usable(_as_seeds(pools), gold, max(ns, default=1))
        names = list(dict.fromkeys(proxies)) or default_proxies(usable[0], gold)
        self.pools = _with_baselines(usable, names)
        self.sizes = sorted({len(p.candidates) for pools in self.pools for p in pools})
        self.ns = _sizes(ns, self.sizes[0])
        self.kl_bound = kl_upper_bound(self.ns) if iid else None
        self._expected = {
            name: [
                expect(p, name, gold, self.ns, reads, seed + i) for i, p in enumerate(self.pools)
            ]
            for name in names
        }
        self.chance = np.array([expect(p, RANDOM, gold, self.ns).gold for p in self.pools])
        self.curves = [self._curve(name) for name in names]
        compared = [name for name in names if name not in FROM_GOLD]
        self.differences = [self._difference(a, b) for a, b in combinations(compared, 2)]

    @property
    def prompts(self) -> int:
        return len(self.pools[0])

    def gold_of(self, name: str) -> Array:
        """`[seeds, prompts, ns]`, expected gold of what a proxy selects."""
        return self._stack(name, "gold")

    def interval(self, values: Array, *, fixed_prompts: bool = False) -> Interval:
        """The mean over prompts of `[seeds, prompts, columns]` with its interval.

        Over the prompts that have a value in every column; NaN if there are none.
        """
        known = np.isfinite(values).all(axis=(0, 2))
        if not known.any():
            unknown = np.full(values.shape[2], np.nan)
            return Interval(unknown, unknown, unknown)
        return bootstrap_pools(
            values[:, known],
            fixed_prompts=fixed_prompts,
            resamples=self.resamples,
            level=self.level,
            seed=self.seed,
        )

    def _stack(self, name: str, field: str) -> Array:
        return np.array([getattr(expected, field) for expected in self._expected[name]])

    def _curve(self, name: str) -> ProxyCurve:
        parts, gold = self._expected[name], self.gold_of(name)
        interval = self.interval(gold)
        peak = int(np.argmax(interval.mean))
        errors = np.sqrt(sum(part.monte_carlo_error**2 for part in parts)) / len(parts)
        scored = self._stack(name, "scored_tokens").mean(axis=(0, 1))
        score = None if name in (*FROM_GOLD, *BASELINES, MAJORITY) else name.removeprefix(WEIGHTED)
        pools = [pool for of_seed in self.pools for pool in of_seed]
        return ProxyCurve(
            name=name,
            gold=interval,
            gain=self.interval(gold - self.chance),
            noise=self.interval(gold, fixed_prompts=True) if len(gold) > 1 else None,
            proxy=None if parts[0].proxy is None else self.interval(self._stack(name, "proxy")),
            after_peak=(self.ns[peak], self.interval(gold[:, :, -1:] - gold[:, :, [peak]])),
            failures=self._stack(name, "failures").mean(axis=(0, 1)),
            ties=self._stack(name, "ties").mean(axis=(0, 1)),
            failed_scores=_failed(pools, score),
            generated_tokens=_generated(pools, self.ns),
            scored_tokens=scored,
            seconds=_seconds(pools, score, self.ns, scored),
            monte_carlo_error=errors if np.any(errors > 0) else None,
        )

    def _difference(self, a: str, b: str) -> Difference:
        gap = self.gold_of(a) - self.gold_of(b)
        last = gap[:, :, -1].mean(axis=0)
        order = np.argsort(-np.abs(last), kind="stable")[:DIFFER_MOST]
        ids = [pool.prompt.id for pool in self.pools[0]]
        return Difference(
            a,
            b,
            gold=self.interval(gap),
            win=self.interval((gap > EQUAL).astype(float)),
            tie=self.interval((np.abs(gap) <= EQUAL).astype(float)),
            lose=self.interval((gap < -EQUAL).astype(float)),
            most=[(ids[i], float(last[i])) for i in order if abs(last[i]) > EQUAL],
        )


def default_proxies(pools: Sequence[Pool], gold: str) -> list[str]:
    """All scores that the pools have besides gold, then the baselines that they allow."""
    known = dict.fromkeys(name for pool in pools for name in pool.candidates[0].scores)
    scores = [name for name in known if name != gold and "@" not in name]
    counted = all(c.mean_logprob is not None for p in pools for c in p.candidates if not c.error)
    own = ["longest", *(["mean-logprob"] if counted else []), MAJORITY]
    return list(dict.fromkeys([*scores, *own, RANDOM, ORACLE]))


def _as_seeds(pools: Sequence[Pool] | Sequence[Sequence[Pool]]) -> list[list[Pool]]:
    if pools and isinstance(pools[0], Pool):
        return [list(pools)]  # type: ignore[arg-type]
    return [list(pools_of_seed) for pools_of_seed in pools]  # type: ignore[arg-type]


def _usable(
    seeds: Sequence[Sequence[Pool]], gold: str, largest: int
) -> tuple[list[list[Pool]], list[tuple[str, str]]]:
    """The prompts that all seeds have a pool for with known gold, in the first one's order."""
    by_id = [_by_id(pools) for pools in seeds]
    names = dict.fromkeys(name for pools in by_id for name in pools)
    reasons = {n: _unusable([pools.get(n) for pools in by_id], gold, largest) for n in names}
    kept = [name for name, reason in reasons.items() if reason is None]
    left_out = [(name, reason) for name, reason in reasons.items() if reason is not None]
    if not reasons:
        raise ConfigError("there are no pools to make a curve from")
    if not kept:
        name, reason = left_out[0]
        raise ConfigError(f"no prompt can be used; the first, {name}: {reason}")
    return [[pools[name] for name in kept] for pools in by_id], left_out


def _by_id(pools: Sequence[Pool]) -> dict[str, Pool]:
    by_id = {pool.prompt.id: pool for pool in pools}
    if len(by_id) < len(pools):
        (name, count), *_ = Counter(pool.prompt.id for pool in pools).most_common(1)
        raise ConfigError(f"{count} pools have the prompt id {name!r}; give each draw as a seed")
    return by_id


def _unusable(pools: Sequence[Pool | None], gold: str, largest: int) -> str | None:
    """Why a prompt cannot be used, None if it can."""
    for place, pool in enumerate(pools):
        if pool is None:
            return f"not among the pools of seed {place} (counted from 0)"
        if pools[0] and content_key(pool.prompt) != content_key(pools[0].prompt):
            return f"another prompt than in the first seed under the same id, in seed {place}"
        if len(pool.candidates) < largest:
            return f"{len(pool.candidates)} candidates are too few for N={largest}"
        if reason := unknown_gold(pool, gold):
            return reason
    return None


def _sizes(ns: Sequence[int], smallest: int) -> list[int]:
    if ns:
        return sorted(set(ns))
    return sorted({*(2**k for k in range(smallest.bit_length())), smallest})


def _with_baselines(seeds: Sequence[Sequence[Pool]], proxies: Sequence[str]) -> list[list[Pool]]:
    """Copies of the pools, with those scores that a pool's candidates carry in themselves."""
    copies = [[_copied(pool) for pool in pools] for pools in seeds]
    every = [pool for pools in copies for pool in pools]
    if "mean-logprob" in proxies:
        lacking = (pool for pool in every if not has_scores(pool, "mean-logprob"))
        list(add(lacking, [load_reward("mean-logprob")]))
    candidates = [candidate for pool in every for candidate in pool.candidates]
    unit = length_unit(candidates)
    for name in LENGTHS.keys() & set(proxies):
        for c in candidates:
            c.scores[name] = Score(LENGTHS[name] * length(c, unit))
            if c.finish_reason == "error":
                c.scores[name] = Score(reason=f"no response: {c.error}")
    return copies


def _copied(pool: Pool) -> Pool:
    candidates = [replace(c, scores={**c.scores}) for c in pool.candidates]
    return replace(pool, candidates=candidates, seconds={**pool.seconds})


def _failed(pools: Sequence[Pool], score: str | None) -> float:
    if score is None:
        return 0.0
    return float(np.mean([isnan(c.scores[score].value) for p in pools for c in p.candidates]))


def _generated(pools: Sequence[Pool], ns: Sequence[int]) -> Array | None:
    counts = [[0 if c.error else c.token_count for c in pool.candidates] for pool in pools]
    if any(count is None for of_pool in counts for count in of_pool):
        return None
    total: Array = fmean(map(fmean, counts)) * np.array(ns, dtype=np.float64)  # type: ignore[arg-type]
    return total


def _seconds(
    pools: Sequence[Pool], score: str | None, ns: Sequence[int], scored: Array
) -> Array | None:
    """Drawing costs in proportion to n, scoring to the tokens that are computed for it."""
    stages = {"sample", *filter(None, [score])}
    if not all(stages <= pool.seconds.keys() for pool in pools):
        return None
    each = fmean(pool.seconds["sample"] / len(pool.candidates) for pool in pools)
    total: Array = each * np.array(ns, dtype=np.float64)
    if score is not None:
        tokens = [c.scores[score].usage.computed_tokens for p in pools for c in p.candidates]
        whole = sum(tokens) / len(pools)
        total = total + fmean(pool.seconds[score] for pool in pools) * scored / max(whole, 1.0)
    return total
