"""The estimators against enumeration of every subset, and intervals against plain loops."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import comb, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.estimators import (
    best_of_n,
    bootstrap_mean,
    bootstrap_pools,
    choices,
    expected_cost,
    expected_votes,
    failure_rate,
    gain_percent,
    kl_upper_bound,
    resampled_stratum_means,
    stratum_means,
    tie_rate,
    unpaired_difference,
    votes,
)

# --- best of N ------------------------------------------------------------------------------------

PROXY = st.sampled_from([nan, -np.inf, 0.0, 1.0, 2.0, np.inf])
SCORED = st.lists(st.tuples(PROXY, st.floats(-10, 10)), min_size=1, max_size=8)


def enumerate_draws(pool: list[tuple[float, float]], n: int) -> tuple[float, float, float]:
    """Expected value, tie rate and failure rate over all subsets of size n."""
    values, ties, failures = [], [], []
    for drawn in combinations(pool, n):
        scored = [pair for pair in drawn if not isnan(pair[0])]
        best = max((proxy for proxy, _ in scored), default=None)
        top = [pair for pair in scored if pair[0] == best] if scored else list(drawn)
        values.append(float(np.mean([value for _, value in top])))
        ties.append(bool(scored) and len(top) > 1)
        failures.append(not scored)
    return float(np.mean(values)), float(np.mean(ties)), float(np.mean(failures))


@settings(max_examples=600, deadline=None)
@given(SCORED)
def test_best_of_n_equals_enumeration(pool: list[tuple[float, float]]) -> None:
    proxy, value = np.array(pool).T[:, None, :]
    ns = list(range(1, len(pool) + 1))
    expected = np.array([enumerate_draws(pool, n) for n in ns]).T
    curves = [best_of_n(proxy, value, ns), tie_rate(proxy, ns), failure_rate(proxy, ns)]
    np.testing.assert_allclose(np.concatenate(curves), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 9)), min_size=1, max_size=6))
def test_a_cost_is_paid_once_for_each_group(pool: list[tuple[int, float]]) -> None:
    groups, costs = zip(*pool, strict=True)
    ns = range(1, len(pool) + 1)
    of = {g: sum(cost for group, cost in pool if group == g) for g in groups}
    paid = [
        np.mean([sum(of[g] for g in {groups[i] for i in drawn}) for drawn in subsets])
        for subsets in (list(combinations(range(len(pool)), n)) for n in ns)
    ]
    np.testing.assert_allclose(expected_cost([groups], [costs], ns)[0], paid, atol=1e-12)


def test_large_pools_stay_exact() -> None:
    """One right candidate among 1,024 that the proxy puts at place h: C(h, n) - C(h - 1, n)."""
    size = 1024
    proxy = np.arange(size, dtype=float)[None]
    for place, n in [(1023, 512), (700, 3), (512, 256), (1023, 1024)]:
        value = np.zeros((1, size))
        value[0, place] = 1
        exact = Fraction(comb(place + 1, n) - comb(place, n), comb(size, n))
        assert best_of_n(proxy, value, [n])[0, 0] == pytest.approx(float(exact), rel=1e-11, abs=0)


# --- votes ----------------------------------------------------------------------------------------

Pool = list[tuple[int, float, int | None]]  # answer, value, weight in tenths (None: no vote)

CANDIDATE = st.tuples(st.integers(-1, 3), st.floats(-10, 10), st.sampled_from([None, 0, 1, 2, 3]))
POOL = st.lists(CANDIDATE, min_size=1, max_size=7)


def count(drawn: Pool) -> tuple[Fraction, bool]:
    """The expected value of the choice, and whether answers are tied."""
    answers: dict[int, list[Fraction]] = {}
    totals: dict[int, int] = {}
    for answer, value, weight in drawn:
        if answer >= 0 and weight is not None:
            answers.setdefault(answer, []).append(Fraction(value))
            totals[answer] = totals.get(answer, 0) + weight
    if not answers:
        return sum(Fraction(value) for _, value, _ in drawn) / len(drawn), False
    top = [answer for answer in answers if totals[answer] == max(totals.values())]
    means = [sum(answers[answer], Fraction(0)) / len(answers[answer]) for answer in top]
    return sum(means, Fraction(0)) / len(top), len(top) > 1


def every_subset(pool: Pool) -> np.ndarray:
    """Expected values and tie rates for n from 1 to M: `[2, M]`."""
    curves = []
    for n in range(1, len(pool) + 1):
        counts = [count(list(drawn)) for drawn in combinations(pool, n)]
        value = sum((value for value, _ in counts), Fraction(0)) / len(counts)
        curves.append((float(value), sum(tied for _, tied in counts) / len(counts)))
    return np.array(curves).T


def curves(pool: Pool, weighted: bool) -> np.ndarray:
    groups, values, tenths = zip(*pool, strict=True)
    weights = [[nan if weight is None else weight / 10 for weight in tenths]] if weighted else None
    found = expected_votes([groups], [values], range(1, len(pool) + 1), weights)
    np.testing.assert_array_equal(found.error, 0)
    return np.array([found.values[0], found.ties[0]])


def sampling(monkeypatch: pytest.MonkeyPatch, subsets: int = 1, draws: int = 1000) -> None:
    """No vote is exact but by its subsets, if they are few."""
    monkeypatch.setattr(votes, "EXACT_UP_TO", 0)
    monkeypatch.setattr(choices, "ENUMERATE_UP_TO", subsets)
    monkeypatch.setattr(choices, "DRAWS", draws)


def many_pools(prompts: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups with ties and failures, values that depend on them, and weights of few levels."""
    rng = np.random.default_rng(seed)
    groups = np.minimum(rng.geometric(0.3, size=(prompts, size)), 9) - 1
    groups[rng.random(groups.shape) < 0.1] = -1
    values = (groups == 1) + 0.1 * rng.normal(size=groups.shape)
    weights = rng.choice([0.0, 0.1, 0.2, 0.3, 1.0, nan], size=groups.shape)
    return groups, values, weights


@settings(max_examples=600, deadline=None)
@given(POOL)
def test_votes_equal_enumeration(pool: Pool) -> None:
    np.testing.assert_allclose(curves(pool, True), every_subset(pool), rtol=0, atol=1e-12)
    alike: Pool = [(answer, value, 1) for answer, value, _ in pool]
    expected = every_subset(alike)
    np.testing.assert_allclose(curves(alike, False), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curves(alike, True), expected, rtol=0, atol=1e-12)


def test_two_answers_are_the_hypergeometric_law() -> None:
    """Of 256, 140 right ones against 116: the sum over how many of each are drawn."""
    right = np.arange(256) < 140
    ns = [1, 2, 25, 128, 201, 256]
    found = expected_votes(right.astype(int)[None], right[None], ns)
    for column, n in enumerate(ns):
        share, tied = Fraction(0), Fraction(0)
        for hits in range(max(0, n - 116), min(n, 140) + 1):
            ways = Fraction(comb(140, hits) * comb(116, n - hits), comb(256, n))
            share += ways * (Fraction(1, 2) if 2 * hits == n else int(2 * hits > n))
            tied += ways * (2 * hits == n)
        assert found.values[0, column] == pytest.approx(float(share), abs=1e-12)
        assert found.ties[0, column] == pytest.approx(float(tied), abs=1e-12)


@pytest.mark.parametrize(("size", "weighted"), [(12, False), (40, False), (11, True)])
def test_monte_carlo_is_within_its_error(
    size: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, values, weights = many_pools(60, size)
    given_weights = weights if weighted else None
    ns = [1, 2, 3, 5, 8, size]
    exact = expected_votes(groups, values, ns, given_weights)
    sampling(monkeypatch, draws=400)
    sampled = expected_votes(groups, values, ns, given_weights)
    assert (exact.error == 0).all()
    assert (sampled.error[[0, -1]] == 0).all()
    assert (sampled.error[1:-1] > 0).all()
    off = sampled.values.mean(axis=0) - exact.values.mean(axis=0)
    assert (np.abs(off) <= 5 * sampled.error + 1e-12).all()
    rates = exact.ties.mean(axis=0)
    spread = np.sqrt((exact.ties * (1 - exact.ties)).mean(axis=0) / (60 * 400))
    assert (np.abs(sampled.ties.mean(axis=0) - rates) <= 5 * spread + 1e-12).all()


def test_a_few_subsets_are_enumerated_and_other_sizes_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups, values, _ = many_pools(300, 16)
    exact = expected_votes(groups, values, [3, 8])
    sampling(monkeypatch, subsets=comb(16, 3))
    found = expected_votes(groups, values, [3, 8])
    np.testing.assert_allclose(found.values[:, 0], exact.values[:, 0], atol=1e-12)
    assert np.abs(found.values - exact.values).max() < 6 * 0.6 / np.sqrt(1000)


def test_names_of_answers_do_not_count() -> None:
    groups, values, _ = many_pools(20, 12)
    names = np.array([2**62, 5, 2**62 + 1, 0, 77, 3, 2**40, 8, 9, -1])  # the last is that of -1
    found = expected_votes(names[groups], values, [4, 9])
    np.testing.assert_allclose(found.values, expected_votes(groups, values, [4, 9]).values)


@pytest.mark.parametrize(
    "curve",
    [
        lambda groups, values, _, ns: best_of_n(np.where(groups < 0, nan, groups), values, ns),
        lambda groups, values, _, ns: tie_rate(np.where(groups < 0, nan, groups), ns),
        lambda groups, values, _, ns: expected_votes(groups, values, ns).values,
        lambda groups, values, weights, ns: expected_votes(groups, values, ns, weights).values,
        lambda groups, values, weights, ns: expected_votes(groups, values, ns, weights).ties,
    ],
)
def test_prompts_and_sizes_do_not_mix(curve: Callable[..., Any]) -> None:
    pools, ns = many_pools(40, 9), [9, 2, 2, 5]  # any order, also twice
    alone = [curve(*(column[[row]] for column in pools), ns)[0] for row in range(40)]
    np.testing.assert_allclose(curve(*pools, ns), alone, atol=1e-12)


# --- intervals ------------------------------------------------------------------------------------


def test_bootstrap_is_the_quantile_of_resampled_means() -> None:
    """Also across the blocks in which the resamples are drawn."""
    values = np.random.default_rng(6).normal(size=(7, 2))
    counts = np.random.default_rng(9).multinomial(7, [1 / 7] * 7, size=600)
    low, high = np.quantile(counts @ values / 7, [0.1, 0.9], axis=0)
    found = bootstrap_mean(values, resamples=600, level=0.8, seed=9)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    alone = bootstrap_mean([0.25])
    assert (alone.mean, alone.low, alone.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("pools", [1, 2, 5])
@pytest.mark.parametrize("fixed_prompts", [False, True])
def test_intervals_cover_the_mean(pools: int, between: float, fixed_prompts: bool) -> None:
    """Of these prompts, or of all prompts, which is 0, in about 95 % of 300 data sets."""
    if fixed_prompts and pools == 1:
        return
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(300):
        truth = rng.normal(scale=between, size=30)
        values = truth + rng.normal(size=(pools, 30))
        found = bootstrap_pools(values, fixed_prompts=fixed_prompts, resamples=300)
        held += bool(found.low <= (truth.mean() if fixed_prompts else 0.0) <= found.high)
    assert 0.90 <= held / 300 <= 0.985


def test_an_unpaired_difference_scatters_by_both_sides() -> None:
    a, b = np.random.default_rng(7).normal(size=(2, 300)) * [[1.0], [3.0]]
    found = unpaired_difference(a, b[:100], resamples=4000)
    error = np.sqrt(a.var() / 300 + b[:100].var() / 100)
    assert found.mean == pytest.approx(a.mean() - b[:100].mean())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.05)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 1000))
def test_stratum_means_by_hand(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.permutation([place for place, size in enumerate(sizes) for _ in range(size)])
    values = rng.random((len(strata), 2))
    by_hand = [values[strata == place].sum(axis=0) / size for place, size in enumerate(sizes)]
    found = stratum_means(values, strata.tolist())
    assert found[:-1] == pytest.approx(np.array(by_hand))
    assert found[-1] == pytest.approx(np.mean(by_hand, axis=0))


def test_resamples_stay_within_their_strata_and_are_shared() -> None:
    draws = resampled_stratum_means([[1.0, 1], [1, 1], [0, 0], [0, 0]], [0, 0, 1, 1], resamples=50)
    assert draws.shape == (50, 3, 2)
    assert np.array_equal(draws[:, :, 0], np.tile([1.0, 0.0, 0.5], (50, 1)))
    values = np.random.default_rng(1).random((30, 1))
    strata = [0] * 10 + [1] * 20
    both = resampled_stratum_means(np.hstack([values, values]), strata, resamples=20, seed=3)
    alone = resampled_stratum_means(values, strata, resamples=20, seed=3)
    assert both == pytest.approx(np.concatenate([alone, alone], axis=-1))


@pytest.mark.parametrize(
    ("a", "b", "a_draws", "b_draws", "expected"),
    [
        (0.345, 0.173, [0.345], [0.173], (99.42, 99.42, 99.42)),  # as in the paper
        (0.5, 0.4, [0.5] * 100, [0.0] * 20 + [0.5] * 80, (25, 0, np.inf)),
        # Resamples in which both are zero do not count.
        (0.3, 0.15, [0.0] * 50 + [0.6] * 50, [0.0] * 50 + [0.3] * 50, (100, 100, 100)),
    ],
)
def test_gains(
    a: float, b: float, a_draws: list[float], b_draws: list[float], expected: tuple[float, ...]
) -> None:
    gain = gain_percent(a, b, np.array(a_draws), np.array(b_draws))
    assert gain is not None
    assert (gain.mean, gain.low, gain.high) == pytest.approx(expected, abs=0.01)
    assert gain_percent(a, 0.0, np.array(a_draws), np.zeros(len(a_draws))) is None


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments", "match"),
    [
        (best_of_n, ([1.0], [1.0], [1]), r"\[prompts, M\]"),
        (best_of_n, ([[]], [[]], [1]), "not empty"),
        (best_of_n, ([[1.0]], [[1.0]], [0]), "from 1 to the pool size 1"),
        (tie_rate, ([[1.0]], [2]), "from 1 to the pool size 1"),
        (failure_rate, ([[1.0]], [1.5]), "whole numbers"),
        (best_of_n, ([[1.0]], [[1.0, 2.0]], [1]), "shape"),
        (best_of_n, ([[1.0]], [[nan]], [1]), "finite"),
        (expected_cost, ([[1, 2]], [[1.0]], [1]), "shape"),
        (expected_votes, ([[0, 1, 2]], [[1.0, 2.0]], [1]), "groups has shape"),
        (expected_votes, ([[0.0, 1.0]], [[1.0, 2.0]], [1]), "groups must be whole"),
        (expected_votes, ([[0, -2]], [[1.0, 2.0]], [1]), "-1 for no answer"),
        (expected_votes, ([[0, 1]], [[1.0, nan]], [1]), "finite"),
        (expected_votes, ([[0, 1]], [[1.0, 2.0]], [3]), "from 1 to the pool size 2"),
        (expected_votes, ([[0, 1]], [[1.0, 2.0]], [1], [[1.0]]), "weights has shape"),
        (expected_votes, ([[0, 1]], [[1.0, 2.0]], [1], [[1.0, -0.1]]), "negative"),
        (kl_upper_bound, ([0],), "at least 1"),
        (kl_upper_bound, ([],), "whole numbers"),
        (bootstrap_mean, ([],), "values must be"),
        (bootstrap_mean, ([[[1.0]]],), "values must be"),
        (bootstrap_mean, ([np.inf],), "finite"),
        (bootstrap_pools, ([1.0, 2.0],), "seeds, prompts"),
        (bootstrap_pools, (np.zeros((2, 0)),), "not empty"),
        (unpaired_difference, ([1.0], [[1.0]]), "values must be"),
        (stratum_means, ([[1.0]], [0, 1]), "values must"),
        (stratum_means, ([1.0], [0]), "values must"),
        (stratum_means, ([[1.0]], [1]), "no items"),
    ],
)
def test_what_is_refused(function: Callable[..., object], arguments: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        function(*arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"level": 1.0}, "level"),
        ({"resamples": 0}, "resamples"),
        ({"fixed_prompts": True}, "two or more"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bootstrap_pools([[1.0, 2.0]], **options)
