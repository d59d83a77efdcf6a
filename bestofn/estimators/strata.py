"""Means over strata, such as the subsets of a benchmark, and what resampling makes of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bestofn.estimators.arrays import Array, as_finite
from bestofn.estimators.intervals import Interval


def stratum_means(values: ArrayLike, strata: Sequence[int]) -> Array:
    """The mean of each stratum and, last, the mean of these means: `[strata + 1, columns]`.

    Args:
        values: `[items, columns]`, finite.
        strata: `[items]`, which stratum an item is in: 0, 1, ..., each at least once.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
    """
    return _with_mean(np.stack([block.mean(axis=0) for block in _blocks(values, strata)]))


def resampled_stratum_means(
    values: ArrayLike, strata: Sequence[int], *, resamples: int = 2000, seed: int = 0
) -> Array:
    """`stratum_means` of resampled items: `[resamples, strata + 1, columns]`.

    Items are resampled within their strata, as the sizes of subsets are no accident. All columns
    share the resamples, and so does any other call with the same strata and seed.

    Raises:
        ValueError: what `stratum_means` raises, or there are no resamples.
    """
    if resamples < 1:
        raise ValueError("resamples must be at least 1")
    rng = np.random.default_rng(seed)
    means = []
    for block in _blocks(values, strata):
        size = len(block)
        counts = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
        means.append(counts @ block / size)
    return _with_mean(np.stack(means, axis=1))


def _blocks(values: ArrayLike, strata: Sequence[int]) -> list[Array]:
    data, places = as_finite(np.asarray(values, dtype=np.float64)), np.asarray(strata)
    if data.ndim != 2 or places.shape != data.shape[:1] or not places.size:
        raise ValueError(f"values must be [items, columns] of {places.size} items")
    blocks = [data[places == stratum] for stratum in range(int(places.max()) + 1)]
    if not all(map(len, blocks)):
        raise ValueError("a stratum has no items")
    return blocks


def _with_mean(means: Array) -> Array:
    return np.concatenate([means, means.mean(axis=-2, keepdims=True)], axis=-2)


def interval(value: ArrayLike, draws: Array, level: float = 0.95) -> Interval:
    """A value with the percentile interval of its resamples, `[resamples, ...]`."""
    low, high = np.quantile(draws, _ends(level), axis=0)
    return Interval(np.asarray(value, dtype=np.float64), low, high)


def gain_percent(
    a: float, b: float, a_draws: Array, b_draws: Array, level: float = 0.95
) -> Interval | None:
    """By how many percent a is more than b, 100 (a / b - 1); None where b is 0.

    An end of the interval is infinite where b is 0 in enough of the resamples.

    Args:
        a: A share.
        b: Another one.
        a_draws: `[resamples]`, of the first.
        b_draws: `[resamples]`, of the second on the same resamples.
        level: Of the interval.
    """
    if b <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 says nothing and does not count
        gains = 100 * (a_draws / b_draws - 1)
    low, high = np.nanquantile(gains, _ends(level), method="inverted_cdf")
    return Interval(np.asarray(100 * (a / b - 1)), low, high)


def _ends(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2
