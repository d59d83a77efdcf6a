"""Expected value of what a rule of any kind chooses among N of a pool of M candidates a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bestofn.estimators.expected import Array, Whole, as_finite, as_matrix, check_sizes

ENUMERATE_UP_TO = 4096  # the most subsets that are enumerated; M are in any case
DRAWS = 1000  # permutations of each prompt's pool
PAIRS = 2**23  # drawn candidates times n, looked at together

# Sums of the same numbers in another order differ by rounding alone; totals so close are tied.
ROUNDING = 1e-12

Flags = NDArray[np.bool_]
Rule = Callable[[Whole], tuple[Array, Flags]]
"""Of draws `[draws, n]`, numbers of a pool's candidates: with which probability each of the n is
chosen, `[draws, n]`, and whether several were equally good, `[draws]`."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen, for each prompt and size."""

    values: Array  # `[prompts, sizes]`, expected, of the chosen candidate
    ties: Array  # `[prompts, sizes]`, the probability that several are equally good
    # `[sizes]`, the Monte Carlo standard error of the mean of `values` over prompts, 0 where they
    # are exact; it says nothing of the scatter between prompts.
    error: Array


def expected_choices(
    rules: Sequence[Rule], value: ArrayLike, ns: Sequence[int], *, seed: int = 0
) -> Choices:
    """Expected `value` of the candidate that each prompt's rule chooses among n, for each n.

    n of the M candidates are drawn without replacement. Exact for each n with at most 4,096
    subsets, and at n = 1 and n = M; any other n is estimated from 1,000 random permutations, the
    same for every n and for every call with the same shape and seed.

    Args:
        rules: `[prompts]`.
        value: `[prompts, M]`, finite.
        ns: Sizes, each from 1 to M.
        seed: Of the permutations.

    Raises:
        ValueError: one of these does not hold.
    """
    values = as_finite(as_matrix(value, "value"))
    sizes = check_sizes(ns, values.shape[1])
    if len(rules) != len(values):
        raise ValueError(f"there are {len(rules)} rules, but values of {len(values)} prompts")
    rng = np.random.default_rng(seed)
    pool = values.shape[1]
    few = np.array([comb(pool, int(n)) <= max(ENUMERATE_UP_TO, pool) for n in sizes])
    subsets = {n: np.array(list(combinations(range(pool), n))) for n in set(sizes[few].tolist())}
    found = np.zeros((3, len(values), len(sizes)))
    for prompt, (rule, worth) in enumerate(zip(rules, values, strict=True)):
        orders = np.empty((0, pool), np.int64)
        if not few.all():
            orders = rng.random((DRAWS, pool)).argsort(axis=1)
        for place, n in enumerate(sizes.tolist()):
            drawn = subsets[n] if few[place] else orders[:, :n]
            # A rule may compare each of the drawn with each other one.
            parts = np.array_split(drawn, 1 + drawn.size * n // PAIRS)
            found_in = [(part, *rule(part)) for part in parts if len(part)]
            chosen = np.concatenate([(c * worth[part]).sum(axis=1) for part, c, _ in found_in])
            tied = np.concatenate([ties for _, _, ties in found_in])
            spread = 0.0 if few[place] else chosen.var(ddof=1) / DRAWS
            found[:, prompt, place] = chosen.mean(), tied.mean(), spread
    return Choices(found[0], found[1], np.sqrt(found[2].sum(axis=0)) / len(values))


def highest(values: Array, able: Flags) -> Flags:
    """Which of the able ones of `[draws, n]` have the highest value of their row."""
    known = np.where(able, values, -np.inf)
    best = known.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of rows where none is able
        found: Flags = able & (known >= best - ROUNDING * np.abs(best))
    return found


def evenly(best: Flags) -> tuple[Array, Flags]:
    """What a `Rule` returns for an even choice among the best, of all where there are none."""
    count = best.sum(axis=1, keepdims=True)
    return np.where(count > 0, best / np.maximum(count, 1), 1 / best.shape[1]), count[:, 0] > 1
