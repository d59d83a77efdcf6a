"""Expected vote among N of a pool of M candidates a prompt, unweighted or weighted."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from bestofn.estimators.arrays import Array, Whole, as_finite, as_matrix, check_sizes
from bestofn.estimators.vote_draws import Ballots, enumerate_draws, sample_draws
from bestofn.estimators.vote_shares import LARGEST_POOL, shares


@dataclass(frozen=True, slots=True)
class Votes:
    """What a vote selects, for each prompt and size.

    Attributes:
        values: `[prompts, sizes]`, the expected value of the chosen candidate.
        ties: `[prompts, sizes]`, the probability that several answers share the most votes; where
            the values are estimated, so is this.
        error: `[sizes]`, the Monte Carlo standard error of the mean of `values` over prompts; 0
            where the values are exact. It says nothing of the scatter between prompts.
    """

    values: Array
    ties: Array
    error: Array


def expected_votes(
    groups: ArrayLike,
    value: ArrayLike,
    ns: Sequence[int],
    weights: ArrayLike | None = None,
    *,
    exact_up_to: int = 256,
    enumerate_up_to: int = 4096,
    draws: int = 1000,
    seed: int = 0,
) -> Votes:
    """Expected `value` of the candidate that a vote among n chooses, for each prompt and n.

    n of the M candidates are drawn without replacement; the answer with the most votes wins, or,
    with `weights`, the one whose drawn candidates weigh most. Ties between answers are broken at
    random, and so is the choice among the winner's drawn candidates. A candidate without an answer
    is chosen only where none of the n has one, then at random; those draws are no ties.

    The unweighted vote is exact by generating functions (`vote_shares`). The weighted vote, and the
    unweighted one of a pool over `exact_up_to`, is exact for each n with at most `enumerate_up_to`
    subsets, and always at n = 1 and n = M; any other n is estimated from random permutations, the
    same for every n and for every call with the same shape, `draws` and seed. Totals of weights
    that differ by less than 1e-12 of themselves count as tied, as sums in another order may.

    Args:
        groups: `[prompts, M]`, whole numbers: equal ones give the same answer, -1 gives none.
        value: `[prompts, M]`, finite.
        ns: Sizes, each from 1 to M.
        weights: `[prompts, M]`, not negative; NaN where the candidate has no vote, as with -1.
        exact_up_to: The largest pool, up to 1,000, whose unweighted vote is computed exactly. The
            time grows with the third power of M and with the number of different sizes of answers.
        enumerate_up_to: The most subsets that are enumerated; M are in any case.
        draws: Permutations of each prompt's pool; 2 or more.
        seed: Of the permutations.

    Raises:
        ValueError: shapes differ, a size is out of range, a group is below -1 or no whole number, a
            value is not finite, a weight is negative or infinite, or an option is out of range.
    """
    values, answers = as_finite(as_matrix(value, "value")), np.asarray(groups)
    _same_shape("groups", answers, values)
    if answers.dtype.kind not in "iu" or answers.min() < -1:
        raise ValueError("groups must be whole numbers, equal where answers are; -1 for no answer")
    sizes = check_sizes(ns, values.shape[1])
    if not 0 <= exact_up_to <= LARGEST_POOL:
        raise ValueError(f"exact_up_to must be from 0 to {LARGEST_POOL}, not {exact_up_to}")
    if draws < 2 or enumerate_up_to < 1:
        raise ValueError("draws must be at least 2 and enumerate_up_to at least 1")
    if weights is None and values.shape[1] <= exact_up_to:
        return _exact(_numbered(answers), values, sizes)
    weighing = np.ones_like(values) if weights is None else _checked_weights(weights, values)
    votes = ~np.isnan(weighing) & (answers != -1)
    numbered = _numbered(np.where(votes, answers, -1))
    ballots = Ballots(numbered, np.where(votes, weighing, 0.0), values)
    return _by_draws(ballots, sizes, enumerate_up_to, draws, seed)


def _exact(answers: Whole, values: Array, sizes: Whole) -> Votes:
    """A candidate's chance depends only on how many share its answer: one profile, one count."""
    prompts, pool = answers.shape
    places = answers + 1 + np.arange(prompts)[:, None] * (pool + 1)
    held = np.bincount(places.ravel(), minlength=prompts * (pool + 1))[places]
    held[answers < 0] = 0
    order = np.argsort(held, axis=1, kind="stable")
    held, ordered = (np.take_along_axis(column, order, axis=1) for column in (held, values))
    profiles, which = np.unique(held, axis=0, return_inverse=True)
    chosen, ties = np.empty((2, prompts, len(sizes)))
    for number, profile in enumerate(profiles):
        rows = which.ravel() == number
        share, tied = shares(profile)
        chosen[rows] = ordered[rows] @ share[:, sizes - 1]
        ties[rows] = tied[sizes - 1]
    return Votes(chosen, ties, np.zeros(len(sizes)))


def _by_draws(ballots: Ballots, sizes: Whole, most: int, draws: int, seed: int) -> Votes:
    prompts, pool = ballots.answers.shape
    chosen, ties, spread = np.zeros((3, prompts, len(sizes)))
    few = np.array([comb(pool, int(n)) <= max(most, pool) for n in sizes])
    for n in np.unique(sizes[few]):
        value, tied = enumerate_draws(ballots, int(n))
        chosen[:, sizes == n], ties[:, sizes == n] = value[:, None], tied[:, None]
    if not few.all():
        sampled = sample_draws(ballots, sizes[~few], draws, seed)
        chosen[:, ~few], ties[:, ~few], spread[:, ~few] = sampled
    return Votes(chosen, ties, np.sqrt(spread.sum(axis=0)) / prompts)


def _numbered(groups: Whole) -> Whole:
    """Answers numbered from 0 up within their prompt; -1 stays."""
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    numbers = np.zeros(groups.shape, dtype=np.int64)
    numbers[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    numbers -= ordered[:, :1] == -1
    numbered = np.empty_like(numbers)
    np.put_along_axis(numbered, order, numbers, axis=1)
    return numbered


def _checked_weights(weights: ArrayLike, values: Array) -> Array:
    checked = as_matrix(weights, "weights")
    _same_shape("weights", checked, values)
    if (checked < 0).any() or np.isinf(checked).any():
        raise ValueError("weights must not be negative or infinite; NaN for a candidate with none")
    return checked


def _same_shape(name: str, data: Array | Whole, values: Array) -> None:
    if data.shape != values.shape:
        raise ValueError(f"{name} has shape {data.shape} but value has {values.shape}")
