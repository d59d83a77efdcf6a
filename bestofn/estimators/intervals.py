"""Means over prompts with their percentile intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bestofn.estimators.arrays import Array, as_finite

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts and its percentile interval; each a number, or an array `[columns]`."""

    mean: Array
    low: Array
    high: Array


def bootstrap_mean(
    values: ArrayLike, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over prompts with a percentile interval from resampled prompts.

    The percentile bootstrap of Efron and Tibshirani (1993, chapter 13), a prompt being the unit.
    With a single prompt the interval is that prompt's value.

    Args:
        values: `[prompts]` or `[prompts, columns]`, finite. All columns share the resamples, and
            so does any other call with as many prompts and the same seed.
        resamples: Their number.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: nothing to resample, or a value is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim not in (1, 2) or not len(data):
        raise ValueError(f"values must be [prompts] or [prompts, columns], not {data.shape}")
    prompts = len(as_finite(data))
    rng = np.random.default_rng(seed)
    even = np.full(prompts, 1 / prompts)

    def draw(rows: int) -> Counts:
        return rng.multinomial(prompts, even, size=rows)

    low, high = _quantiles(data, draw, resamples, level)
    return Interval(data.mean(axis=0), low, high)


def bootstrap_pools(
    values: ArrayLike,
    *,
    fixed_prompts: bool = False,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over prompts that have several pools each, drawn with different seeds.

    A prompt's pools are independent draws given the prompt: what a seed gave on one prompt says
    nothing about another, so a seed's number means nothing, and pools are nested in prompts. With
    S pools a prompt, the mean over prompts varies by (between + within / S) / prompts, where
    `between` is the variance of the prompts' true values, and `within` that of one pool's value
    around its prompt's.

    - By default prompts are resampled, each with all its pools. The means of the prompts already
      scatter by between + within / S, so the interval holds both parts: what would other prompts,
      with new pools, have given? Resampling seeds on top, inside each drawn prompt, would count
      the pools' part nearly twice; Davison and Hinkley (1997, section 3.8) and Field and Welsh
      (JRSS B 69, 2007) come to resampling whole clusters.
    - With `fixed_prompts` the prompts stay, and in each of them its pools are resampled: the
      interval holds within / S alone: what would new pools for these prompts have given? The
      spread of S resampled pools is (S - 1) / S of the variance and is widened by as much.

    Args:
        values: `[seeds, prompts]` or `[seeds, prompts, columns]`, finite. All columns share the
            resamples.
        fixed_prompts: Whether the prompts are all there is to speak of, or a sample of more.
        resamples: Their number.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: nothing to resample, a value is not finite, or prompts are fixed and have one
            pool each, which tells nothing of its scatter.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim not in (2, 3) or not data.size:
        wanted = "[seeds, prompts] or [seeds, prompts, columns]"
        raise ValueError(f"values must be {wanted} and not empty, not {data.shape}")
    if not fixed_prompts:
        return bootstrap_mean(data.mean(axis=0), resamples=resamples, level=level, seed=seed)
    pools, prompts, *columns = as_finite(data).shape
    if pools < 2:
        raise ValueError("values of one seed do not tell how pools scatter; give two or more")
    rng = np.random.default_rng(seed)
    even = np.full(pools, 1 / pools)

    def draw(rows: int) -> Counts:
        return rng.multinomial(pools, even, size=(rows, prompts)).reshape(rows, -1)

    by_prompt = np.swapaxes(data, 0, 1).reshape(prompts * pools, *columns)
    mean, widen = by_prompt.mean(axis=0), np.sqrt(pools / (pools - 1))
    low, high = _quantiles(by_prompt, draw, resamples, level)
    return Interval(mean, mean + widen * (low - mean), mean + widen * (high - mean))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of a - b with its interval; both are resampled by the same prompts.

    Raises:
        ValueError: shapes differ, and what `bootstrap_mean` raises.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape} but b has {second.shape}")
    return bootstrap_mean(first - second, resamples=resamples, level=level, seed=seed)


def unpaired_difference(
    a: ArrayLike, b: ArrayLike, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of a minus mean of b, of different prompts; each side is resampled by itself.

    Args:
        a: `[prompts]`, finite.
        b: `[other prompts]`, finite.
        resamples: Their number.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: a side is empty or not one-dimensional, or a value is not finite.
    """
    rng = np.random.default_rng(seed)
    means = []
    for side in (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)):
        if side.ndim != 1 or not side.size:
            raise ValueError(f"each side must be [prompts] and not empty, not {side.shape}")
        as_finite(side)
        drawn = rng.multinomial(len(side), np.full(len(side), 1 / len(side)), size=resamples)
        means.append((side.mean(), drawn @ side / len(side)))
    (mean_a, drawn_a), (mean_b, drawn_b) = means
    low, high = np.quantile(drawn_a - drawn_b, [(1 - level) / 2, (1 + level) / 2])
    return Interval(np.asarray(mean_a - mean_b), low, high)


def _quantiles(
    data: Array, draw: Callable[[int], Counts], resamples: int, level: float
) -> tuple[Array, Array]:
    """The interval's ends; `draw(rows)` counts how often each of the data is in a resample."""
    if resamples < 1 or not 0 < level < 1:
        raise ValueError("resamples must be at least 1 and level between 0 and 1")
    means = np.empty((resamples, *data.shape[1:]))
    rows = min(256, max(1, 2**22 // len(data)))  # bounds the memory of the counts
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = draw(stop - start) @ data / len(data)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
