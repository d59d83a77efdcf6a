"""Means over prompts, or over strata such as the subsets of a benchmark, with their intervals.

Values are finite; shapes that do not fit, nothing to resample and other values raise ValueError.
All columns share their resamples, and so does any other call with as many prompts and the same
seed. `level` is that of the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bestofn.estimators.expected import Array, as_finite


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts and its percentile interval; each a number, or an array `[columns]`."""

    mean: Array
    low: Array
    high: Array


def interval(value: ArrayLike, draws: Array, level: float = 0.95) -> Interval:
    """A value with the percentile interval of its resamples, `[resamples, ...]`."""
    low, high = np.quantile(draws, _ends(level), axis=0)
    return Interval(np.asarray(value, dtype=np.float64)[()], low, high)


def known_interval(value: float, draws: Array, level: float) -> Interval | None:
    """A value's interval from those resamples that have one; None where there is no value."""
    return None if np.isnan(value) else interval(value, draws[~np.isnan(draws)], level)


def bootstrap_mean(
    values: ArrayLike, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over prompts, `[prompts]` or `[prompts, columns]`, with an interval from resampled ones.

    The percentile bootstrap of Efron and Tibshirani (1993, chapter 13), a prompt being the unit.
    """
    data = _values(values, "[prompts]", "[prompts, columns]")
    draws = _resampled(data, np.random.default_rng(seed), resamples)
    return interval(data.mean(axis=0), draws, level)


def bootstrap_pools(
    values: ArrayLike,
    *,
    fixed_prompts: bool = False,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over prompts with several pools, `[seeds, prompts]` or `[seeds, prompts, columns]`.

    By default prompts are resampled, each with all its pools: what would other prompts, with new
    pools, have given? The prompts' means scatter by the variance between prompts plus that of one
    pool by their number S, so the interval covers both (whole clusters are resampled: Davison and
    Hinkley 1997, section 3.8; Field and Welsh, JRSS B 69, 2007). With `fixed_prompts` each prompt
    stays and its pools are resampled: what would new pools for these prompts have given? The
    spread of S resampled pools is (S - 1) / S of the variance and is widened by as much.
    """
    data = _values(values, "[seeds, prompts]", "[seeds, prompts, columns]")
    if not fixed_prompts:
        return bootstrap_mean(data.mean(axis=0), resamples=resamples, level=level, seed=seed)
    pools, prompts, *columns = data.shape
    if pools < 2:
        raise ValueError("values of one seed do not tell how pools scatter; give two or more")
    by_prompt = np.swapaxes(data, 0, 1).reshape(prompts * pools, *columns)
    draws = _resampled(by_prompt, np.random.default_rng(seed), resamples, blocks=prompts)
    mean, widen = by_prompt.mean(axis=0), np.sqrt(pools / (pools - 1))
    narrow = interval(mean, draws, level)
    return Interval(mean, mean + widen * (narrow.low - mean), mean + widen * (narrow.high - mean))


def unpaired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of a, `[prompts]`, minus mean of b, `[other prompts]`, each resampled by itself."""
    rng = np.random.default_rng(seed)
    sides = [_values(side, "[prompts]") for side in (a, b)]
    first, second = (_resampled(side, rng, resamples) for side in sides)
    return interval(sides[0].mean() - sides[1].mean(), first - second, level)


def stratum_means(values: ArrayLike, strata: Sequence[int]) -> Array:
    """The mean of each stratum and, last, the mean of these means: `[strata + 1, columns]`.

    `values` are `[items, columns]`; `strata`, `[items]`, says which an item is in: 0, 1, ...
    """
    return _with_mean([block.mean(axis=0) for block in _blocks(values, strata)])


def resampled_stratum_means(
    values: ArrayLike, strata: Sequence[int], *, resamples: int = 2000, seed: int = 0
) -> Array:
    """`stratum_means` of items resampled in their strata: `[resamples, strata + 1, columns]`."""
    rng = np.random.default_rng(seed)
    return _with_mean([_resampled(b, rng, resamples) for b in _blocks(values, strata)])


def gain_percent(
    a: float, b: float, a_draws: Array, b_draws: Array, level: float = 0.95
) -> Interval | None:
    """By how many percent share a is more than share b, 100 (a / b - 1); None where b is 0.

    Both draws are `[resamples]`, on the same resamples. An end of the interval is infinite where b
    is 0 in enough of them.
    """
    if b <= 0:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 says nothing and does not count
        gains = 100 * (a_draws / b_draws - 1)
    low, high = np.nanquantile(gains, _ends(level), method="inverted_cdf")
    return Interval(np.asarray(100 * (a / b - 1)), low, high)


def _resampled(data: Array, rng: np.random.Generator, resamples: int, blocks: int = 1) -> Array:
    """Means of resamples, `[resamples, ...]`; each of the equal `blocks` is resampled by itself."""
    if resamples < 1:
        raise ValueError("resamples must be at least 1")
    size = len(data) // blocks
    even = np.full(size, 1 / size)
    means = np.empty((resamples, *data.shape[1:]))
    rows = min(256, max(1, 2**22 // len(data)))  # bounds the memory of the counts
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        counts = rng.multinomial(size, even, size=(len(part), blocks))
        part[...] = counts.reshape(len(part), -1) @ data / len(data)
    return means


def _values(values: ArrayLike, *shapes: str) -> Array:
    """Finite values, of one of these shapes."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim not in [shape.count(",") + 1 for shape in shapes] or not data.size:
        raise ValueError(f"values must be {' or '.join(shapes)} and not empty, not {data.shape}")
    return as_finite(data)


def _blocks(values: ArrayLike, strata: Sequence[int]) -> list[Array]:
    data, places = _values(values, "[items, columns]"), np.asarray(strata)
    if places.shape != data.shape[:1]:
        raise ValueError(f"values must be [items, columns] of {places.size} items")
    blocks = [data[places == stratum] for stratum in range(int(places.max()) + 1)]
    if not all(map(len, blocks)):
        raise ValueError("a stratum has no items")
    return blocks


def _with_mean(means: Sequence[Array]) -> Array:
    """Strata as the second to last axis, followed by their mean."""
    stacked = np.stack(means, axis=-2)
    return np.concatenate([stacked, stacked.mean(axis=-2, keepdims=True)], axis=-2)


def _ends(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    return (1 - level) / 2, (1 + level) / 2
