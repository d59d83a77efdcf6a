"""Means over strata and their resamples, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.estimators import gain_percent, interval, resampled_stratum_means, stratum_means

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(SIZES, st.integers(0, 1000))
def test_means_by_hand(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.permutation([place for place, size in enumerate(sizes) for _ in range(size)])
    values = rng.random((len(strata), 2))
    found = stratum_means(values, strata.tolist())
    by_hand = [
        [
            sum(v[c] for v, s in zip(values, strata, strict=True) if s == place) / size
            for c in (0, 1)
        ]
        for place, size in enumerate(sizes)
    ]
    assert found[:-1] == pytest.approx(np.array(by_hand))
    assert found[-1] == pytest.approx(np.mean(by_hand, axis=0))


def test_resamples_stay_within_their_strata() -> None:
    values, strata = [[1.0], [1.0], [0.0], [0.0]], [0, 0, 1, 1]
    draws = resampled_stratum_means(values, strata, resamples=50)
    assert draws.shape == (50, 3, 1)
    assert np.array_equal(draws[:, :, 0], np.tile([1.0, 0.0, 0.5], (50, 1)))


def test_the_interval_is_that_of_the_mean_of_independent_subsets() -> None:
    rng = np.random.default_rng(0)
    strata = [0] * 400 + [1] * 100
    values = rng.integers(0, 2, (500, 1)).astype(float)
    draws = resampled_stratum_means(values, strata, resamples=4000)
    spread = [values[:400].var() / 400, values[400:].var() / 100]
    expected = float(np.sqrt(sum(spread) / 4))
    assert draws[:, -1, 0].std() == pytest.approx(expected, rel=0.05)
    found = interval(stratum_means(values, strata)[-1, 0], draws[:, -1, 0])
    assert float(found.high - found.low) == pytest.approx(2 * 1.96 * expected, rel=0.08)


def test_columns_and_calls_share_their_resamples() -> None:
    values = np.random.default_rng(1).random((30, 1))
    strata = [0] * 10 + [1] * 20
    both = resampled_stratum_means(np.hstack([values, values]), strata, resamples=20, seed=3)
    alone = resampled_stratum_means(values, strata, resamples=20, seed=3)
    assert both[..., 0] == pytest.approx(both[..., 1])
    assert both[..., :1] == pytest.approx(alone)


@pytest.mark.parametrize(
    ("values", "strata"),
    [
        ([[1.0]], [0, 1]),
        ([1.0], [0]),
        ([[np.nan]], [0]),
        ([[1.0]], [1]),
        (np.empty((0, 1)), []),
    ],
)
def test_what_cannot_be_used(values: object, strata: list[int]) -> None:
    with pytest.raises(ValueError, match=r"values must|finite|no items"):
        stratum_means(values, strata)  # type: ignore[arg-type]


def test_no_resamples() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        resampled_stratum_means([[1.0]], [0], resamples=0)


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
