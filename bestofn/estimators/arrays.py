"""What the estimators share: input that is checked, and C(h, n) / C(M, n) as a table."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


def as_matrix(data: ArrayLike, name: str) -> Array:
    matrix = np.asarray(data, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"{name} must be [prompts, M] and not empty, not {matrix.shape}")
    return matrix


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
