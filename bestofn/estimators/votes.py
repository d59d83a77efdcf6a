"""Votes among N of a pool of M candidates a prompt, unweighted or weighted.

The unweighted vote is exact: an answer that c of the M candidates give gets j votes in C(c, j)
ways, so ways to draw are counted by generating functions in x, whose exponent is the number drawn.
For k votes to win, every answer has fewer (sum of C(c, j) x^j for j < k) or as many, and is then
tied: y C(c, k) x^k. The winner's share among t + 1 tied is 1 / (t + 1), the integral of y^t over
[0, 1], which Gauss-Legendre nodes give exactly. Every term is positive, so nothing cancels.

The weighted vote is counted draw by draw, see `expected_choices`.
"""

from collections.abc import Sequence
from functools import cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from bestofn.estimators.choices import Choices, Flags, Rule, expected_choices, highest
from bestofn.estimators.expected import (
    Array,
    Whole,
    as_finite,
    as_matrix,
    check_sizes,
    same_shape,
)

EXACT_UP_TO = 256  # the largest pool whose unweighted vote is exact; time grows as its cube


def expected_votes(
    groups: ArrayLike,
    value: ArrayLike,
    ns: Sequence[int],
    weights: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Choices:
    """Expected `value` of the candidate that a vote among n chooses, for each prompt and n.

    n of the M candidates are drawn without replacement; the answer with the most votes wins, or,
    with `weights`, the one whose drawn candidates weigh most. Ties between answers are broken at
    random, and so is the choice among the winner's drawn candidates. A candidate without an answer
    is chosen only where none of the n has one, then at random; those draws are no ties.

    The unweighted vote is exact up to M = 256; all else is as exact as `expected_choices`.

    Args:
        groups: `[prompts, M]`, whole numbers: equal ones give the same answer, -1 gives none.
        value: `[prompts, M]`, finite.
        ns: Sizes, each from 1 to M.
        weights: `[prompts, M]`, not negative; NaN where the candidate has no vote, as with -1.
        seed: Of the permutations.

    Raises:
        ValueError: one of these does not hold.
    """
    values, answers = as_finite(as_matrix(value, "value")), np.asarray(groups)
    same_shape("groups", answers, values)
    if answers.dtype.kind not in "iu" or answers.min() < -1:
        raise ValueError("groups must be whole numbers, equal where answers are; -1 for no answer")
    sizes = check_sizes(ns, values.shape[1])
    if weights is None and values.shape[1] <= EXACT_UP_TO:
        return _exact(_numbered(answers), values, sizes)
    weighing = np.ones_like(values) if weights is None else as_matrix(weights, "weights")
    same_shape("weights", weighing, values)
    rules = [vote(row, weight) for row, weight in zip(answers, weighing, strict=True)]
    return expected_choices(rules, values, ns, seed=seed)


def vote(answers: Whole, weights: Array) -> Rule:
    """The rule by which the answer wins whose drawn candidates weigh most; see `expected_votes`.

    Args:
        answers: `[M]`, equal numbers where answers are, -1 for none.
        weights: `[M]`, not negative; NaN where the candidate has no vote.

    Raises:
        ValueError: a weight is negative or infinite.
    """
    if (weights < 0).any() or np.isinf(weights).any():
        raise ValueError("weights must not be negative or infinite; NaN for a candidate with none")
    (numbered,) = _numbered(np.where(np.isnan(weights), -1, answers)[None])
    weigh = np.nan_to_num(weights)

    def count(drawn: Whole) -> tuple[Array, Flags]:
        given, rows = numbered[drawn], np.arange(len(drawn))
        # The last column, which -1 names as well, is of those without an answer.
        totals, members = np.zeros((2, len(drawn), int(numbered.max()) + 2))
        for places, weight in zip(given.T, weigh[drawn].T, strict=True):
            totals[rows, places] += weight
            members[rows, places] += 1
        members[:, -1] = 0
        winners = highest(totals, members > 0)
        tied = winners.sum(axis=1, keepdims=True)
        chances = np.take_along_axis(winners / np.maximum(tied * members, 1), given, axis=1)
        return np.where(tied > 0, chances, 1 / drawn.shape[1]), tied[:, 0] > 1

    return count


def _numbered(groups: Whole) -> Whole:
    """Answers numbered from 0 up within their prompt; -1 stays."""
    rows = [np.unique(row, return_inverse=True) for row in groups]
    return np.array([numbers - (known[0] == -1) for known, numbers in rows])


def _exact(answers: Whole, values: Array, sizes: Whole) -> Choices:
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
        share, tied = _shares(profile)
        chosen[rows] = ordered[rows] @ share[:, sizes - 1]
        ties[rows] = tied[sizes - 1]
    return Choices(chosen, ties, np.zeros(len(sizes)))


def _shares(sizes: Whole) -> tuple[Array, Array]:
    """The chance that candidate i is chosen among N, `[M, M]` at [i, N - 1], and of a tie, `[M]`.

    `sizes`, `[M]`, says for each candidate how many give its answer, 0 where it gives none.
    """
    pool = len(sizes)
    held = np.bincount(sizes, minlength=pool + 1)
    distinct = np.flatnonzero(held[1:]) + 1
    failed = int(held[0])
    wins, alone = _count_wins(distinct, held[distinct] // distinct, failed)
    draws = np.array([float(comb(pool, n)) for n in range(1, pool + 1)])
    none = _padded(_binomials(failed), pool + 1)[1:] / draws
    of_size = np.zeros((pool + 1, pool))
    of_size[distinct] = wins[:, 1:] / draws / distinct[:, None]
    if failed:
        of_size[0] = none / failed
    return of_size[sizes], np.clip(1.0 - none - alone[1:] / draws, 0.0, 1.0)


def _count_wins(distinct: Whole, many: Whole, failed: int) -> tuple[Array, Array]:
    """Ways to draw N = 0..M in which an answer wins, a tie counted by its share: `[D, M + 1]`.

    Second, `[M + 1]`, those in which any wins untied. `distinct`, `[D]`, are the sizes that answers
    have, rising; `many` how many have each; `failed` how many candidates have no answer.
    """
    pool = failed + int(distinct @ many)
    wins, alone = np.zeros((len(distinct), pool + 1)), np.zeros(pool + 1)
    for votes in range(1, int(distinct.max(initial=0)) + 1):
        first = int(np.searchsorted(distinct, votes))
        able, rivals = distinct[first:], many[first:]
        nodes, weights = _nodes(int(rivals.sum()))
        others = _without_one(able, rivals, votes, pool - int(able @ rivals), nodes)
        for place, (size, number, other) in enumerate(zip(able, rivals, others, strict=True)):
            ways = float(comb(size, votes))
            reach = slice(votes, votes + other.shape[-1])
            wins[first + place, reach] += ways * (weights @ other)
            alone[reach] += number * ways * other[0]
    return wins, alone


def _without_one(able: Whole, many: Whole, votes: int, rest: int, nodes: Array) -> Array:
    """For each size, the product over all answers but one of it: `[D, nodes, degree + 1]`.

    No answer has more than `votes`; the `rest` of the candidates cannot reach it, and are drawn
    freely. `nodes` are values of y.
    """
    # The first row is the product of all; each further one leaves out one answer.
    stack = np.tile(_binomials(rest), (1, len(nodes), 1))
    for size, number in zip(able, many, strict=True):
        factor = _binomials(int(size))[: votes + 1]
        for _ in range(number - 1):
            stack = _times(stack, factor, nodes)
        multiplied = _times(stack, factor, nodes)
        stack = np.concatenate([multiplied, _padded(stack[:1], multiplied.shape[-1])])
    return stack[1:, :, :-votes]  # one answer short of all, so the highest terms are 0


def _times(stack: Array, factor: Array, nodes: Array) -> Array:
    """Polynomials times one answer's, whose last term is marked by y."""
    *rows, terms = stack.shape
    marked = np.tile(factor, (len(nodes), 1))
    marked[:, -1] *= nodes
    product = np.zeros((*rows, terms + len(factor) - 1))
    for drawn, column in enumerate(marked.T):
        product[..., drawn : drawn + terms] += column[:, None] * stack
    return product


@cache
def _nodes(tied: int) -> tuple[Array, Array]:
    """Gauss-Legendre on [0, 1], exact to degree `tied` - 1; before them 0 with no weight.

    At 0 a tie counts nothing: what is left there are the wins of one answer alone.
    """
    points, weights = np.polynomial.legendre.leggauss((tied + 1) // 2)
    return np.append(0.0, (points + 1) / 2), np.append(0.0, weights / 2)


@cache
def _binomials(size: int) -> Array:
    """The coefficients of (1 + x)^size."""
    return np.array([float(comb(size, drawn)) for drawn in range(size + 1)])


def _padded(polynomials: Array, terms: int) -> Array:
    short = terms - polynomials.shape[-1]
    return np.pad(polynomials, [(0, 0)] * (polynomials.ndim - 1) + [(0, short)])
