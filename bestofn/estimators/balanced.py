"""Accuracy that knowing lengths does not help: pairs by whether the right response is longer.

In a pair of a right and a wrong response of different lengths the right one has the higher score,
ties half: how often where it is the longer one, how often where it is the shorter one, and the mean
of the two. A reward that only knows length has 0.5.
"""

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

import numpy as np

from bestofn.estimators.expected import Array

TINY = np.finfo(np.float64).tiny


class Pairs(NamedTuple):
    """The pairs of one item; over items the shares are summed and divided by how many have any."""

    longer: float  # the share of pairs that are right where the right response is the longer one
    has_longer: float  # 1 where there are such pairs, else 0
    shorter: float
    has_shorter: float


def pair_shares(pairs: Iterable[tuple[float, int]]) -> Pairs:
    """What an item's pairs come to.

    Each is given as 1 where the right response has the higher score, 0.5 where both have the same,
    else 0; and by how much it is longer. Equal lengths do not count.
    """
    sides: dict[bool, list[float]] = {True: [], False: []}
    for credit, longer_by in pairs:
        if longer_by:
            sides[longer_by > 0].append(credit)
    longer, shorter = (fmean(side) if side else 0.0 for side in sides.values())
    return Pairs(longer, float(bool(sides[True])), shorter, float(bool(sides[False])))


def balanced(means: Array) -> Array:
    """Where the right one is longer, where it is shorter, and their mean: `[..., 3]`.

    `means` are `[..., 4]`, of `Pairs` over items or over resampled items. NaN where no item has
    such a pair.
    """
    shares, having = means[..., ::2], means[..., 1::2]
    sides = np.where(having > 0, shares / np.maximum(having, TINY), np.nan)
    return np.concatenate([sides, sides.mean(axis=-1, keepdims=True)], axis=-1)
