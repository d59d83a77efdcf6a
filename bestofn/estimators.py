"""Expected best-of-N from a pool of M candidates a prompt, and intervals over prompts.

Drawing N of the M at random and taking the best is averaged over *all* subsets of size N, so no
subset has to be drawn. NaN in `proxy` is a failed score: it loses to any value, and among N that
all failed the choice is uniform.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts and its percentile interval; each a number, or an array `[columns]`."""

    mean: Array
    low: Array
    high: Array


def best_of_n(proxy: ArrayLike, value: ArrayLike, ns: Sequence[int]) -> Array:
    """Expected `value` of the candidate with the highest `proxy` among n, for each prompt and n.

    Exact over all subsets of size n drawn without replacement, ties broken at random. With
    samples sorted by proxy, C(h, n) / C(M, n) is the probability that all n lie among the h
    lowest; a tie group that ends at h and starts above l is chosen from with the difference of
    the two, and contributes its mean value. For binary values with proxy = value this is pass@k
    (arXiv 2107.03374).

    Args:
        proxy: `[prompts, M]`, NaN where scoring failed.
        value: `[prompts, M]`, finite.
        ns: Sizes, each from 1 to M.

    Returns:
        `[prompts, len(ns)]`, in the unit of `value`.

    Raises:
        ValueError: shapes differ, a size is out of range, or a value is not finite.
    """
    proxies, values = _matrix(proxy, "proxy"), _matrix(value, "value")
    if proxies.shape != values.shape:
        raise ValueError(f"proxy has shape {proxies.shape} but value has {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("every value must be finite; leave out prompts without a known value")
    ordered, order, ends = _tie_groups(proxies)
    means = _group_means(np.take_along_axis(values, order, axis=1), ends)
    # coefficients[h] = mean of the group ending at h, minus mean of the group starting above h.
    coefficients = np.zeros_like(means)
    coefficients[:, :-1] = np.where(ends[:, :-1], means[:, :-1] - means[:, 1:], 0.0)
    coefficients[:, -1] = means[:, -1]
    weighted: Array = coefficients @ _all_among_lowest(ordered.shape[1], ns)[1:]
    return weighted


def failure_rate(proxy: ArrayLike, ns: Sequence[int]) -> Array:
    """Probability that all n drawn have failed, `[prompts, len(ns)]`. Arguments: `best_of_n`."""
    proxies = _matrix(proxy, "proxy")
    failed = np.isnan(proxies).sum(axis=1)
    rates: Array = _all_among_lowest(proxies.shape[1], ns)[failed]
    return rates


def tie_rate(proxy: ArrayLike, ns: Sequence[int]) -> Array:
    """Probability that several of the n drawn share the highest proxy, `[prompts, len(ns)]`.

    Draws that all failed count as a failure, not as a tie. Arguments: `best_of_n`.
    """
    proxies = _matrix(proxy, "proxy")
    size = proxies.shape[1]
    sizes = _check_sizes(ns, size)
    ordered, _, ends = _tie_groups(proxies)
    groups = np.zeros_like(ordered)  # at the place where a tie group starts, how many it holds
    groups[np.roll(ends, 1)] = _group_sizes(ends)
    groups[np.isnan(ordered)] = 0.0
    # A sole best: one of its group is drawn, and the others all lie among the h below the group.
    # C(h, n - 1) / C(M, n) = C(h, n - 1) / C(M, n - 1) * n / (M - n + 1).
    others = _all_among_lowest(size, sizes - 1, least=0)[:-1] * (sizes / (size - sizes + 1))
    sole = groups @ others
    rates: Array = np.clip(1.0 - sole - failure_rate(proxies, ns), 0.0, 1.0)
    return rates


def kl_upper_bound(ns: Sequence[int]) -> Array:
    """Most that best-of-n may move the policy: log n - (n - 1) / n, in nats (arXiv 2401.01879).

    Args:
        ns: Sizes, each at least 1.

    Returns:
        `[len(ns)]`, an upper bound of KL(best-of-n || policy).

    Raises:
        ValueError: a size is not a whole number, or less than 1.
    """
    sizes = _whole_numbers(ns)
    if sizes.min() < 1:
        raise ValueError(f"each n must be at least 1, not {list(ns)}")
    return np.asarray(np.log(sizes) - (sizes - 1) / sizes)


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
    if not np.isfinite(data).all():
        raise ValueError("every value must be finite; leave out prompts without a known value")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError("resamples must be at least 1 and level between 0 and 1")
    prompts = len(data)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, *data.shape[1:]))
    rows = min(256, max(1, 2**22 // prompts))  # bounds the memory of the counts
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=stop - start)
        means[start:stop] = counts @ data / prompts
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(data.mean(axis=0), low, high)


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


def _matrix(data: ArrayLike, name: str) -> Array:
    matrix = np.asarray(data, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"{name} must be [prompts, M] and not empty, not {matrix.shape}")
    return matrix


def _tie_groups(proxies: Array) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
    """Sorted proxies with NaN first, the order, and which places end a group of equal ones."""
    failed = np.isnan(proxies)
    # Stable by two keys: whether it succeeded, then the value.
    order = np.lexsort((np.where(failed, 0.0, proxies), ~failed), axis=1)
    ordered = np.take_along_axis(proxies, order, axis=1)
    ends = np.ones(ordered.shape, dtype=np.bool_)
    both_failed = np.isnan(ordered[:, 1:]) & np.isnan(ordered[:, :-1])
    ends[:, :-1] = (ordered[:, 1:] != ordered[:, :-1]) & ~both_failed
    return ordered, order, ends


def _group_sizes(ends: NDArray[np.bool_]) -> NDArray[np.intp]:
    """How many each tie group holds: one number a group, all prompts in a row."""
    return np.diff(np.flatnonzero(ends), prepend=-1)


def _group_means(values: Array, ends: NDArray[np.bool_]) -> Array:
    """At each place the mean value of its tie group."""
    held = _group_sizes(ends)
    means = np.add.reduceat(values.ravel(), np.cumsum(held) - held) / held
    return np.repeat(means, held).reshape(values.shape)


def _all_among_lowest(size: int, ns: Sequence[int] | NDArray[np.int64], least: int = 1) -> Array:
    """C(h, n) / C(size, n) for h = 0..size and each n: `[size + 1, len(ns)]`.

    By the recurrence over h downwards from 1, C(h - 1, n) / C(h, n) = (h - n) / h.
    """
    sizes = _check_sizes(ns, size, least)
    places = np.arange(size, 0, -1)[:, None]
    factors = np.maximum(places - sizes, 0) / places
    table = np.ones((size + 1, len(sizes)))
    table[:size] = np.cumprod(factors, axis=0)[::-1]
    return table


def _check_sizes(
    ns: Sequence[int] | NDArray[np.int64], size: int, least: int = 1
) -> NDArray[np.int64]:
    sizes = _whole_numbers(ns)
    if sizes.min() < least or sizes.max() > size:
        raise ValueError(f"each n must be from {least} to the pool size {size}, not {list(ns)}")
    return sizes


def _whole_numbers(ns: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    numbers = np.asarray(ns)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
        raise ValueError(f"ns must be whole numbers, not {ns!r}")
    return numbers.astype(np.int64)
