"""Scaling curves: how gold grows with N under each proxy, and which proxy is better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan
from typing import Any

import numpy as np

from bestofn.analysis.costs import Prices, spent, throughput_seconds
from bestofn.analysis.early import draw_early, drawing_of
from bestofn.analysis.proxies import (
    FROM_GOLD,
    MAJORITY,
    ORACLE,
    RANDOM,
    Array,
    score_of,
    scores_of,
    selector_of,
    unknown_gold,
    values_of,
)
from bestofn.errors import ConfigError
from bestofn.estimators import (
    Interval,
    best_of_n,
    bootstrap_pools,
    expected_choices,
    expected_votes,
    failure_rate,
    kl_upper_bound,
    tie_rate,
)
from bestofn.prompts import content_key
from bestofn.rewards.baselines import length_unit
from bestofn.selectors import Vote
from bestofn.types import Pool
from bestofn.verifiers.base import load_answer

Answer = Callable[[str], str]
Seeds = Sequence[Sequence[Pool]]
DIFFER_MOST = 10  # prompts named for each pair of proxies
EQUAL = 1e-9  # two expectations that are closer are a tie


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proxy selects, by prompt: `[seeds, prompts, ns]`, the error `[ns]`."""

    gold: Array
    proxy: Array | None  # given that any candidate has a value, NaN where none has; not of votes
    failures: Array
    ties: Array
    generated_tokens: Array  # NaN where candidates have no token count
    scored_tokens: Array
    money: Array  # NaN where the usage is not known
    latency: Array  # seconds; NaN where they were not measured
    monte_carlo_error: Array  # 0 where `gold` is exact


@dataclass(frozen=True, slots=True)
class ProxyCurve:
    """One proxy; arrays are `[ns]`, means over prompts and over pool seeds."""

    name: str
    gold: Interval  # gold value of the selected candidate
    gain: Interval  # the same minus that of a random candidate, paired by prompt
    noise: Interval | None  # `gold` for the same prompts with other pools, from several seeds
    proxy: Interval | None  # the proxy's own value of the selected candidate
    after_peak: tuple[int, Interval]  # the N where gold is highest; gold at the last N minus there
    failures: Array  # share of draws in which no candidate has a score
    ties: Array  # share of draws with several best candidates
    failed_scores: float  # share of the candidates that have no score
    generated_tokens: Array | None  # drawn for a prompt; None where they are not known
    scored_tokens: Array  # that the scoring model computes for a prompt
    seconds: Array | None  # wall-clock, for a prompt at the throughput of the pool's own run
    # `[2, ns]`, median and 95th percentile over prompts of the seconds from first request to last
    # score, as they were when the pool was made; None where they are not known.
    latency: Array | None
    money: Array | None  # for a prompt, where prices are given
    monte_carlo_error: Array | None  # standard error of simulation in `gold`, None where exact


@dataclass(frozen=True, slots=True)
class Difference:
    """Gold under proxy `a` minus gold under proxy `b`, on the same resamples; `[ns]` each."""

    a: str
    b: str
    gold: Interval
    win: Interval  # share of prompts on which a's expected gold is higher
    tie: Interval
    lose: Interval
    most: list[tuple[str, float]]  # prompts that differ most at the largest N, by id


class ScalingCurve:
    """Gold against N for each proxy, from pools of candidates with scores.

    Every number is an expectation over all subsets of size N of a prompt's pool, drawn without
    replacement. Intervals resample prompts, each with its pool or pools.

    Args:
        pools: One pool for each prompt, or several such lists, one for each seed.
        proxies: What selects: names of scores, or "random", "oracle", "longest", "shortest",
            "mean-logprob", "majority", "mbr", "SELECTOR:SCORE", such as "weighted:flip" and
            "soft=0.2:flip", see `bestofn.selectors`, or a rule that ends drawing early, such as
            "adaptive=0.01:flip" and "reject=32/64/0.5:flip", see `early.drawing_of`. By default all
            scores that the pools have and the baselines.
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
        prices: Of a million tokens, see `costs.Prices`.

    Attributes:
        pools: Those that were used, one list for each seed, prompts in the same order.
        unit: What lengths are in: "characters" if any candidate has no token count.
        chance: `[seeds, prompts, ns]`, gold of a random candidate.
        differences: For each pair of proxies but the oracle and the random choice.
        kl_bound: `[ns]`, or None.
        left_out: Prompts that were left out, by id, and why.

    Raises:
        ConfigError: there is nothing to estimate from, a score is missing, or an N is too large.
    """

    def __init__(
        self,
        pools: Sequence[Pool] | Seeds,
        *,
        proxies: Sequence[str] = (),
        gold: str = "gold",
        ns: Sequence[int] = (),
        answer: str | Answer = str.strip,
        resamples: int = 2000,
        level: float = 0.95,
        seed: int = 0,
        iid: bool = True,
        prices: Prices | None = None,
    ) -> None:
        self.prices = prices or {}
        self.gold, self._answer = gold, load_answer(answer)
        self.level, self.resamples, self.seed = level, resamples, seed
        self.bootstrap: Any = {"resamples": resamples, "level": level, "seed": seed}
        one = bool(pools) and isinstance(pools[0], Pool)
        seeds: Seeds = [pools] if one else pools  # type: ignore[list-item, assignment]
        self.pools, self.left_out = _usable(seeds, gold, max(ns, default=1))
        names = list(dict.fromkeys(proxies)) or default_proxies(self.pools[0], gold)
        self.unit = length_unit(c for of_seed in self.pools for p in of_seed for c in p.candidates)
        self.sizes = sorted({len(p.candidates) for of_seed in self.pools for p in of_seed})
        least = self.sizes[0]
        self.ns = sorted(set(ns) or {*(2**k for k in range(least.bit_length())), least})
        self.kl_bound = kl_upper_bound(self.ns) if iid else None
        self._expected = {name: self.expect(name) for name in names}
        self.chance = self.expect(RANDOM).gold
        self.curves = [self._curve(name) for name in names]
        compared = [name for name in names if name not in FROM_GOLD]
        self.differences = [self._difference(a, b) for a, b in combinations(compared, 2)]

    @property
    def prompts(self) -> int:
        return len(self.pools[0])

    def gold_of(self, name: str) -> Array:
        """`[seeds, prompts, ns]`, expected gold of what a proxy selects."""
        return self._expected[name].gold

    def expect(
        self,
        proxy: str,
        value: Callable[[Pool], list[float]] | None = None,
        pools: Seeds | None = None,
    ) -> Expected:
        """What a proxy selects, in gold or another `value`, on the curve's or other pools."""
        seeds, score = self.pools if pools is None else pools, score_of(proxy)
        drawing = drawing_of(proxy)
        columns = np.zeros((8, len(seeds), len(seeds[0]), len(self.ns)))
        variances = np.zeros((len(seeds), len(self.ns)))
        for place, of_seed in enumerate(seeds):
            seed = self.seed + place
            rows = [scores_of(p, self.gold) if value is None else value(p) for p in of_seed]
            if drawing is not None:
                early = draw_early(of_seed, drawing, rows, self.ns, prices=self.prices, seed=seed)
                columns[[0, 2, 3], place] = early.values, early.failures, early.ties
                columns[4:, place] = early.generated, early.scored, early.money, early.seconds
                variances[place] = early.error**2
                continue
            sizes = [len(pool.candidates) for pool in of_seed]
            for size in dict.fromkeys(sizes):
                block = np.flatnonzero(np.equal(sizes, size))
                part, truth = [of_seed[i] for i in block], np.array([rows[i] for i in block])
                found, error = self._selected(part, proxy, truth, seed)
                columns[:4, place, block] = found
                columns[4:, place, block] = spent(part, score, self.ns, self.prices)
                # Blocks are simulated apart: the errors of their sums add in squares.
                variances[place] += (len(block) / len(of_seed) * error) ** 2
        errors = np.sqrt(variances)
        gold, own, failures, ties, generated, scored, money, latency = columns
        has_own = proxy != RANDOM and drawing is None and selector_of(proxy, self._answer) is None
        return Expected(
            gold=gold,
            proxy=own if has_own else None,
            failures=failures,
            ties=ties,
            generated_tokens=generated,
            scored_tokens=scored,
            money=money,
            latency=latency,
            monte_carlo_error=np.sqrt((errors**2).sum(axis=0)) / len(errors),
        )

    def _selected(
        self, pools: Sequence[Pool], proxy: str, truth: Array, seed: int
    ) -> tuple[list[Array], Array]:
        """The first four fields of `Expected` for pools of equal size, and the error."""
        none, ns = np.zeros((len(pools), len(self.ns))), self.ns
        if proxy == RANDOM:
            value = np.repeat(truth.mean(axis=1, keepdims=True), len(ns), axis=1)
            return [value, none, none, none], none[0]
        if proxy == ORACLE:
            scores = truth
        else:
            scores = np.array([values_of(pool, proxy, self.unit) for pool in pools])
        selector = selector_of(proxy, self._answer)
        if selector is not None:
            drawn = [pool.candidates for pool in pools]
            able = [selector.able(*row) for row in zip(drawn, scores, strict=True)]
            failures = failure_rate(np.where(able, 0.0, nan), ns)
            if isinstance(selector, Vote) and not selector.reads_scores:
                answers = [selector.answers(*row) for row in zip(drawn, scores, strict=True)]
                found = expected_votes(np.array(answers), truth, ns, seed=seed)
            else:
                try:
                    rules = [selector.rule(*row) for row in zip(drawn, scores, strict=True)]
                except ConfigError as error:
                    raise ConfigError(f"{proxy!r}: {error}") from None
                found = expected_choices(rules, truth, ns, seed=seed)
            return [found.values, none, failures, found.ties], found.error
        failures = failure_rate(scores, ns)
        any_score = np.where(failures < 1, 1 - failures, nan)  # no value where none has one
        own = best_of_n(scores, np.nan_to_num(scores), ns) / any_score
        return [best_of_n(scores, truth, ns), own, failures, tie_rate(scores, ns)], none[0]

    def interval(self, values: Array, *, fixed_prompts: bool = False) -> Interval:
        """The mean over prompts of `[seeds, prompts, columns]` with its interval.

        Over the prompts that have a value in every column; NaN if there are none.
        """
        known = np.isfinite(values).all(axis=(0, 2))
        if not known.any():
            unknown = np.full(values.shape[2], np.nan)
            return Interval(unknown, unknown, unknown)
        return bootstrap_pools(values[:, known], fixed_prompts=fixed_prompts, **self.bootstrap)

    def _curve(self, name: str) -> ProxyCurve:
        found, gold = self._expected[name], self.gold_of(name)
        interval = self.interval(gold)
        peak = int(np.argmax(interval.mean))
        errors = found.monte_carlo_error
        generated, scored, money = (
            part.mean(axis=(0, 1))
            for part in (found.generated_tokens, found.scored_tokens, found.money)
        )
        latency = np.percentile(found.latency, [50, 95], axis=(0, 1))
        pools, score = [pool for of_seed in self.pools for pool in of_seed], score_of(name)
        scores = [c.scores[score] for pool in pools for c in pool.candidates] if score else []
        return ProxyCurve(
            name=name,
            gold=interval,
            gain=self.interval(gold - self.chance),
            noise=self.interval(gold, fixed_prompts=True) if len(gold) > 1 else None,
            proxy=None if found.proxy is None else self.interval(found.proxy),
            after_peak=(self.ns[peak], self.interval(gold[:, :, -1:] - gold[:, :, [peak]])),
            failures=found.failures.mean(axis=(0, 1)),
            ties=found.ties.mean(axis=(0, 1)),
            failed_scores=float(np.mean([isnan(s.value) for s in scores])) if scores else 0.0,
            generated_tokens=None if np.isnan(generated).any() else generated,
            scored_tokens=scored,
            seconds=throughput_seconds(pools, score, self.ns, generated, scored),
            latency=None if np.isnan(latency).any() else latency,
            money=money if self.prices and not np.isnan(money).any() else None,
            monte_carlo_error=errors if np.any(errors > 0) else None,
        )

    def _difference(self, a: str, b: str) -> Difference:
        gap = self.gold_of(a) - self.gold_of(b)
        last = gap[:, :, -1].mean(axis=0)
        order = np.argsort(-np.abs(last), kind="stable")[:DIFFER_MOST]
        ids = [pool.prompt.id for pool in self.pools[0]]
        shares = (gap > EQUAL, np.abs(gap) <= EQUAL, gap < -EQUAL)
        most = [(ids[i], float(last[i])) for i in order if abs(last[i]) > EQUAL]
        win, tie, lose = (self.interval(share.astype(float)) for share in shares)
        return Difference(a, b, self.interval(gap), win, tie, lose, most)


def default_proxies(pools: Sequence[Pool], gold: str) -> list[str]:
    """All scores that the pools have besides gold, then the baselines that they allow."""
    known = dict.fromkeys(name for pool in pools for name in pool.candidates[0].scores)
    scores = [name for name in known if name != gold and "@" not in name]
    counted = all(c.mean_logprob is not None for p in pools for c in p.candidates if not c.error)
    own = ["longest", *(["mean-logprob"] if counted else []), MAJORITY]
    return list(dict.fromkeys([*scores, *own, RANDOM, ORACLE]))


def _usable(
    seeds: Seeds, gold: str, largest: int
) -> tuple[list[list[Pool]], list[tuple[str, str]]]:
    """The prompts that all seeds have a pool for with known gold, in the first one's order."""
    by_id = [{pool.prompt.id: pool for pool in pools} for pools in seeds]
    if any(len(found) < len(pools) for pools, found in zip(seeds, by_id, strict=True)):
        raise ConfigError("several pools have the same prompt id; give each draw as a seed")
    names = dict.fromkeys(name for pools in by_id for name in pools)
    reasons = {n: _unusable([pools.get(n) for pools in by_id], gold, largest) for n in names}
    left_out = [(name, reason) for name, reason in reasons.items() if reason is not None]
    if not reasons:
        raise ConfigError("there are no pools to make a curve from")
    if len(left_out) == len(reasons):
        raise ConfigError("no prompt can be used; the first, {}: {}".format(*left_out[0]))
    return [[pools[n] for n in names if reasons[n] is None] for pools in by_id], left_out


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
