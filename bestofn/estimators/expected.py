"""Expected best-of-N from a pool of M candidates a prompt, over all subsets of size N.

`proxy` is `[prompts, M]`, NaN where scoring failed: that loses to any value, and among N that all
failed the choice is uniform. `value` is `[prompts, M]`, finite; `ns` are sizes from 1 to M. Results
are `[prompts, len(ns)]`. Shapes that differ, other sizes and other values raise ValueError.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


def best_of_n(proxy: ArrayLike, value: ArrayLike, ns: Sequence[int]) -> Array:
    """Expected `value` of the candidate with the highest `proxy` among n, in the unit of `value`.

    Exact over all subsets of size n drawn without replacement, ties broken at random. With
    samples sorted by proxy, C(h, n) / C(M, n) is the probability that all n lie among the h
    lowest; a tie group that ends at h and starts above l is chosen from with the difference of
    the two, and contributes its mean value. For binary values with proxy = value this is pass@k
    (arXiv 2107.03374).
    """
    proxies, values = as_matrix(proxy, "proxy"), as_finite(as_matrix(value, "value"))
    same_shape("proxy", proxies, values)
    ordered, order, ends = _tie_groups(proxies)
    means = _group_means(np.take_along_axis(values, order, axis=1), ends)
    # coefficients[h] = mean of the group ending at h, minus mean of the group starting above h.
    coefficients = np.zeros_like(means)
    coefficients[:, :-1] = np.where(ends[:, :-1], means[:, :-1] - means[:, 1:], 0.0)
    coefficients[:, -1] = means[:, -1]
    weighted: Array = coefficients @ all_among_lowest(ordered.shape[1], ns)[1:]
    return weighted


def failure_rate(proxy: ArrayLike, ns: Sequence[int]) -> Array:
    """Probability that all n drawn have failed."""
    proxies = as_matrix(proxy, "proxy")
    failed = np.isnan(proxies).sum(axis=1)
    rates: Array = all_among_lowest(proxies.shape[1], ns)[failed]
    return rates


def tie_rate(proxy: ArrayLike, ns: Sequence[int]) -> Array:
    """Probability that several of the n drawn share the highest proxy; not if all have failed."""
    proxies = as_matrix(proxy, "proxy")
    size = proxies.shape[1]
    sizes = check_sizes(ns, size)
    ordered, _, ends = _tie_groups(proxies)
    groups = np.zeros_like(ordered)  # at the place where a tie group starts, how many it holds
    groups[np.roll(ends, 1)] = _group_sizes(ends)
    groups[np.isnan(ordered)] = 0.0
    # A sole best: one of its group is drawn, and the others all lie among the h below the group.
    # C(h, n - 1) / C(M, n) = C(h, n - 1) / C(M, n - 1) * n / (M - n + 1).
    others = all_among_lowest(size, sizes - 1, least=0)[:-1] * (sizes / (size - sizes + 1))
    sole = groups @ others
    rates: Array = np.clip(1.0 - sole - failure_rate(proxies, ns), 0.0, 1.0)
    return rates


def expected_cost(groups: ArrayLike, cost: ArrayLike, ns: Sequence[int]) -> Array:
    """Expected cost of n drawn, where each distinct group is paid for once.

    `groups` are whole numbers, equal where one payment serves both; the cost of a group is the sum
    over its members. One of c among M is missed with probability C(M - c, n) / C(M, n).
    """
    costs, members = as_finite(as_matrix(cost, "cost")), np.asarray(groups)
    same_shape("groups", members, costs)
    size = costs.shape[1]
    drawn = 1.0 - all_among_lowest(size, ns)[::-1]  # by how many the group holds
    by_held = np.zeros((len(costs), size + 1))
    rows = np.arange(len(costs))[:, None]
    named = rows * (np.ptp(members) + 1) + members - members.min()
    _, place, counts = np.unique(named, return_inverse=True, return_counts=True)
    np.add.at(by_held, (rows, counts[place].reshape(costs.shape)), costs)
    expected: Array = by_held @ drawn
    return expected


def kl_upper_bound(ns: Sequence[int]) -> Array:
    """Upper bound of KL(best-of-n || policy), `[len(ns)]`: log n - (n - 1) / n, in nats.

    Source: arXiv 2401.01879.
    """
    sizes = whole_numbers(ns)
    if sizes.min() < 1:
        raise ValueError(f"each n must be at least 1, not {list(ns)}")
    return np.asarray(np.log(sizes) - (sizes - 1) / sizes)


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


def as_matrix(data: ArrayLike, name: str) -> Array:
    matrix = np.asarray(data, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"{name} must be [prompts, M] and not empty, not {matrix.shape}")
    return matrix


def same_shape(name: str, data: NDArray[Any], values: Array) -> None:
    if data.shape != values.shape:
        raise ValueError(f"{name} has shape {data.shape} but there are {values.shape} values")


def as_finite(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ValueError("every value must be finite; leave out prompts without a known value")
    return values


def all_among_lowest(size: int, ns: Sequence[int] | Whole, least: int = 1) -> Array:
    """C(h, n) / C(size, n) for h = 0..size and each n: `[size + 1, len(ns)]`.

    By the recurrence over h downwards from 1, C(h - 1, n) / C(h, n) = (h - n) / h.
    """
    sizes = check_sizes(ns, size, least)
    places = np.arange(size, 0, -1)[:, None]
    factors = np.maximum(places - sizes, 0) / places
    table = np.ones((size + 1, len(sizes)))
    table[:size] = np.cumprod(factors, axis=0)[::-1]
    return table


def check_sizes(ns: Sequence[int] | Whole, size: int, least: int = 1) -> Whole:
    sizes = whole_numbers(ns)
    if sizes.min() < least or sizes.max() > size:
        raise ValueError(f"each n must be from {least} to the pool size {size}, not {list(ns)}")
    return sizes


def whole_numbers(ns: Sequence[int] | Whole) -> Whole:
    numbers = np.asarray(ns)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
        raise ValueError(f"ns must be whole numbers, not {ns!r}")
    return numbers.astype(np.int64)
