"""The estimators against enumeration of every subset."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import comb, isnan, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.estimators import (
    best_of_n,
    bootstrap_mean,
    bootstrap_pools,
    failure_rate,
    kl_upper_bound,
    paired_difference,
    tie_rate,
)

PROXY = st.sampled_from([nan, -np.inf, 0.0, 1.0, 2.0, np.inf])
POOL = st.lists(st.tuples(PROXY, st.floats(-10, 10)), min_size=1, max_size=8)


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
@given(POOL)
def test_equals_enumeration(pool: list[tuple[float, float]]) -> None:
    proxy, value = np.array(pool).T[:, None, :]
    ns = list(range(1, len(pool) + 1))
    expected = np.array([enumerate_draws(pool, n) for n in ns]).T
    curves = [best_of_n(proxy, value, ns), tie_rate(proxy, ns), failure_rate(proxy, ns)]
    np.testing.assert_allclose(np.concatenate(curves), expected, rtol=0, atol=1e-12)


def test_ends_of_the_curve() -> None:
    rng = np.random.default_rng(0)
    proxy, value = rng.normal(size=(2, 20, 50))
    curve = best_of_n(proxy, value, [1, 50])
    np.testing.assert_allclose(curve[:, 0], value.mean(axis=1))
    np.testing.assert_allclose(curve[:, 1], value[np.arange(20), proxy.argmax(axis=1)])


def test_prompts_do_not_mix() -> None:
    rng = np.random.default_rng(5)
    proxy = rng.choice([nan, 0.0, 1.0], size=(30, 9))
    value = rng.normal(size=(30, 9))
    ns = [9, 2, 2, 5]  # any order, also twice
    alone = [best_of_n(proxy[[row]], value[[row]], ns)[0] for row in range(30)]
    np.testing.assert_allclose(best_of_n(proxy, value, ns), alone, atol=1e-12)
    alone = [tie_rate(proxy[[row]], ns)[0] for row in range(30)]
    np.testing.assert_allclose(tie_rate(proxy, ns), alone, atol=1e-12)


@pytest.mark.parametrize(("h", "n"), [(1, 1), (700, 3), (512, 512), (1000, 512), (1023, 1023)])
def test_probability_of_the_lowest_is_exact(h: int, n: int) -> None:
    """With value 1 for the h lowest of 1,024, the expectation is C(h, n) / C(1024, n)."""
    value = (np.arange(1024) < h).astype(float)[None]
    exact = float(Fraction(comb(h, n), comb(1024, n)))
    assert best_of_n(np.arange(1024.0)[None], value, [n])[0, 0] == pytest.approx(
        exact, rel=1e-12, abs=0
    )


def test_large_pools_stay_exact() -> None:
    """One right candidate among 1,024 that the proxy puts at place h: C(h, n) - C(h - 1, n)."""
    size = 1024
    proxy = np.arange(size, dtype=float)[None]
    for place, n in [(1023, 512), (700, 3), (512, 256), (1023, 1024)]:
        value = np.zeros((1, size))
        value[0, place] = 1
        exact = Fraction(comb(place + 1, n) - comb(place, n), comb(size, n))
        assert best_of_n(proxy, value, [n])[0, 0] == pytest.approx(float(exact), rel=1e-11, abs=0)


def test_bootstrap_interval_covers_the_mean() -> None:
    """Of 200 samples of known mean, a 90 % interval holds it in about 90 %."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        interval = bootstrap_mean(rng.normal(size=80), resamples=300, level=0.9)
        held += bool(interval.low <= 0 <= interval.high)
    assert 160 <= held <= 195


def test_bootstrap_is_the_quantile_of_resampled_means() -> None:
    """Also across the blocks in which the resamples are drawn."""
    values = np.random.default_rng(6).normal(size=(7, 2))
    counts = np.random.default_rng(9).multinomial(7, [1 / 7] * 7, size=600)
    low, high = np.quantile(counts @ values / 7, [0.1, 0.9], axis=0)
    interval = bootstrap_mean(values, resamples=600, level=0.8, seed=9)
    np.testing.assert_allclose(interval.mean, values.mean(axis=0))
    np.testing.assert_allclose(interval.low, low)
    np.testing.assert_allclose(interval.high, high)


def means_within(
    pools: int, between: float, fixed_prompts: bool, data_sets: int = 300, prompts: int = 30
) -> float:
    """How often the interval holds the mean: of these prompts, or of all prompts, which is 0."""
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(data_sets):
        truth = rng.normal(scale=between, size=prompts)
        values = truth + rng.normal(size=(pools, prompts))
        found = bootstrap_pools(values, fixed_prompts=fixed_prompts, resamples=300)
        held += bool(found.low <= (truth.mean() if fixed_prompts else 0.0) <= found.high)
    return held / data_sets


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("pools", [2, 5])
@pytest.mark.parametrize("fixed_prompts", [False, True])
def test_pools_cover_what_they_speak_of(pools: int, between: float, fixed_prompts: bool) -> None:
    assert 0.90 <= means_within(pools, between, fixed_prompts) <= 0.985


def test_fixed_prompts_leave_the_scatter_between_them_out() -> None:
    """With pools that agree nothing is uncertain about these prompts, but much about others."""
    values = np.tile(np.random.default_rng(11).normal(size=(30, 2)), (4, 1, 1))
    fixed = bootstrap_pools(values, fixed_prompts=True)
    np.testing.assert_allclose([fixed.low, fixed.high], [values[0].mean(axis=0)] * 2)
    free, plain = bootstrap_pools(values, seed=3), bootstrap_mean(values[0], seed=3)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(free, name), getattr(plain, name))
        assert (free.high - free.low > 0.1).all()


def test_fixed_prompts_resample_pools_in_each_prompt_alone() -> None:
    """The spread is that of the mean of S pools: columns of one prompt each, and of both."""
    pools = np.random.default_rng(12).normal(size=(40, 2)) * [1.0, 3.0]
    both = bootstrap_pools(pools, fixed_prompts=True, resamples=20_000)
    error = np.sqrt((pools.var(axis=0, ddof=1) / 40).sum()) / 2
    assert both.mean == pytest.approx(pools.mean())
    assert (both.high - both.low) / (2 * 1.96) == pytest.approx(error, rel=0.04)
    columns = bootstrap_pools(pools[:, None], fixed_prompts=True, resamples=20_000)
    errors = np.sqrt(pools.var(axis=0, ddof=1) / 40)
    np.testing.assert_allclose((columns.high - columns.low) / (2 * 1.96), errors, rtol=0.04)


def test_small_cases() -> None:
    np.testing.assert_allclose(kl_upper_bound([1, 4]), [0, np.log(4) - 0.75])
    alone = bootstrap_mean([0.25])
    assert (alone.mean, alone.low, alone.high) == (0.25, 0.25, 0.25)
    a, b = np.random.default_rng(7).normal(size=(2, 30, 3))
    paired, plain = paired_difference(a, b, seed=4), bootstrap_mean(a - b, seed=4)
    for name in ("mean", "low", "high"):
        np.testing.assert_array_equal(getattr(paired, name), getattr(plain, name))


def refused(function: Callable[..., object], match: str, *given: object, **options: object) -> None:
    with pytest.raises(ValueError, match=match):
        function(*given, **options)


@pytest.mark.parametrize(
    ("proxy", "ns", "match"),
    [
        ([1.0], [1], r"\[prompts, M\]"),
        ([[]], [1], "not empty"),
        ([[1.0]], [0], "from 1 to the pool size 1"),
        ([[1.0]], [2], "from 1 to the pool size 1"),
        ([[1.0]], [1.5], "whole numbers"),
        ([[1.0]], [], "whole numbers"),
    ],
)
def test_bad_pools_and_sizes(proxy: object, ns: list[int], match: str) -> None:
    refused(best_of_n, match, proxy, proxy, ns)
    refused(tie_rate, match, proxy, ns)
    refused(failure_rate, match, proxy, ns)


@pytest.mark.parametrize(
    ("value", "match"), [([[1.0, 2.0]], "shape"), ([[nan]], "finite"), ([[np.inf]], "finite")]
)
def test_bad_values(value: object, match: str) -> None:
    refused(best_of_n, match, [[1.0]], value, [1])


@pytest.mark.parametrize(
    ("function", "given", "options", "match"),
    [
        (kl_upper_bound, [0], {}, "at least 1"),
        (kl_upper_bound, [1.5], {}, "whole numbers"),
        (kl_upper_bound, [], {}, "whole numbers"),
        (bootstrap_mean, [], {}, "values must be"),
        (bootstrap_mean, 1.0, {}, "values must be"),
        (bootstrap_mean, [[[1.0]]], {}, "values must be"),
        (bootstrap_mean, [nan], {}, "finite"),
        (bootstrap_mean, [np.inf], {}, "finite"),
        (bootstrap_mean, [1.0], {"level": 1.0}, "level"),
        (bootstrap_mean, [1.0], {"level": 0.0}, "level"),
        (bootstrap_mean, [1.0], {"resamples": 0}, "resamples"),
        (paired_difference, [1.0, 2.0], {"b": [1.0]}, "shape"),
        (bootstrap_pools, [1.0, 2.0], {}, "seeds, prompts"),
        (bootstrap_pools, [[[[1.0]]]], {}, "seeds, prompts"),
        (bootstrap_pools, np.zeros((2, 0)), {}, "not empty"),
        (bootstrap_pools, [[1.0, nan]], {}, "finite"),
        (bootstrap_pools, [[1.0, nan], [1.0, 1.0]], {"fixed_prompts": True}, "finite"),
        (bootstrap_pools, [[1.0, 2.0]], {"fixed_prompts": True}, "two or more"),
        (bootstrap_pools, [[1.0], [2.0]], {"fixed_prompts": True, "level": 1.0}, "level"),
    ],
)
def test_what_is_refused(
    function: Callable[..., object], given: object, options: dict[str, object], match: str
) -> None:
    refused(function, match, given, **options)
