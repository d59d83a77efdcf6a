"""Expected vote among N of a pool of M candidates a prompt, unweighted or weighted.

The unweighted vote is exact: an answer that c of the M candidates give gets j votes in C(c, j)
ways, so ways to draw are counted by generating functions in x, whose exponent is the number drawn.
For k votes to win, every answer has fewer (sum of C(c, j) x^j for j < k) or as many, and is then
tied: y C(c, k) x^k. The winner's share among t + 1 tied is 1 / (t + 1), the integral of y^t over
[0, 1], which Gauss-Legendre nodes give exactly. Every term is positive, so nothing cancels.

The weighted vote is counted draw by draw: over every subset of a size, or random permutations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from math import comb, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bestofn.estimators.expected import (
    Array,
    Whole,
    as_finite,
    as_matrix,
    check_sizes,
    same_shape,
)

EXACT_UP_TO = 256  # the largest pool whose unweighted vote is exact; time grows as its cube
ENUMERATE_UP_TO = 4096  # the most subsets that are enumerated; M are in any case
DRAWS = 1000  # permutations of each prompt's pool
# Sums of the same weights in another order differ by rounding alone; totals so close are tied.
ROUNDING = 1e-12
BLOCK = 2**19  # drawn candidates that are counted at once

# Answers (numbers from 0 up within a prompt, -1 for none), weights (0 for none) and values of
# candidates, each `[prompts, M]`.
_Ballots = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Votes:
    """What a vote selects, for each prompt and size."""

    values: Array  # `[prompts, sizes]`, expected, of the chosen candidate
    ties: Array  # `[prompts, sizes]`, the probability that several answers share the most votes
    # `[sizes]`, the Monte Carlo standard error of the mean of `values` over prompts, 0 where they
    # are exact; it says nothing of the scatter between prompts.
    error: Array


def expected_votes(
    groups: ArrayLike,
    value: ArrayLike,
    ns: Sequence[int],
    weights: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Votes:
    """Expected `value` of the candidate that a vote among n chooses, for each prompt and n.

    n of the M candidates are drawn without replacement; the answer with the most votes wins, or,
    with `weights`, the one whose drawn candidates weigh most. Ties between answers are broken at
    random, and so is the choice among the winner's drawn candidates. A candidate without an answer
    is chosen only where none of the n has one, then at random; those draws are no ties.

    The unweighted vote is exact up to M = 256. All else is exact for each n with at most 4,096
    subsets, and at n = 1 and n = M; any other n is estimated from 1,000 random permutations, the
    same for every n and for every call with the same shape and seed.

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
    if (weighing < 0).any() or np.isinf(weighing).any():
        raise ValueError("weights must not be negative or infinite; NaN for a candidate with none")
    votes = ~np.isnan(weighing) & (answers != -1)
    numbered = _numbered(np.where(votes, answers, -1))
    return _by_draws([numbered, np.where(votes, weighing, 0.0), values], sizes, seed)


def _numbered(groups: Whole) -> Whole:
    """Answers numbered from 0 up within their prompt; -1 stays."""
    rows = [np.unique(row, return_inverse=True) for row in groups]
    return np.array([numbers - (known[0] == -1) for known, numbers in rows])


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
        share, tied = _shares(profile)
        chosen[rows] = ordered[rows] @ share[:, sizes - 1]
        ties[rows] = tied[sizes - 1]
    return Votes(chosen, ties, np.zeros(len(sizes)))


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


def _by_draws(ballots: _Ballots, sizes: Whole, seed: int) -> Votes:
    """Over all subsets of a size, or random permutations whose first n are the draw of size n."""
    rng = np.random.default_rng(seed)
    prompts, pool = ballots[0].shape
    found = np.zeros((3, prompts, len(sizes)))
    few = np.array([comb(pool, int(n)) <= max(ENUMERATE_UP_TO, pool) for n in sizes])
    for n in np.unique(sizes[few]):
        subsets = np.array(list(combinations(range(pool), int(n))))
        each = _moments(ballots, n[None], partial(np.broadcast_to, subsets), subsets.shape)
        found[:2, :, sizes == n] = each[:2]
    if not few.all():
        largest = sizes[~few].max()

        def permute(shape: tuple[int, ...]) -> Whole:
            return rng.random(shape).argsort(axis=2)[:, :, :largest]

        found[:, :, ~few] = _moments(ballots, sizes[~few], permute, (DRAWS, pool))
    return Votes(found[0], found[1], np.sqrt(found[2].sum(axis=0) / (DRAWS - 1)) / prompts)


def _moments(
    ballots: _Ballots,
    sizes: Whole,
    draw: Callable[[tuple[int, ...]], Whole],
    per_prompt: tuple[int, ...],
) -> Array:
    """Mean value of the chosen, tie rate, variance of that value: `[3, prompts, len(sizes)]`.

    `draw` makes of `[prompts, *per_prompt]` which candidates are drawn, one after another; of them
    the first n have a vote, for each n of `sizes`.
    """
    prompts, at_once = len(ballots[0]), max(1, BLOCK // prod(per_prompt))
    moments = np.empty((3, prompts, len(sizes)))
    for start in range(0, prompts, at_once):
        rows = slice(start, min(start + at_once, prompts))
        part = [column[rows] for column in ballots]
        drawn = draw((rows.stop - start, *per_prompt))
        for n, (chosen, tied) in enumerate(_count(part, drawn), start=1):
            if n in sizes:
                found = np.stack([chosen.mean(axis=1), tied.mean(axis=1), chosen.var(axis=1)])
                moments[:, rows, sizes == n] = found[:, :, None]
    return moments


def _count(ballots: _Ballots, drawn: Whole) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
    """After each vote of `drawn`, `[prompts, draws, n]`: the chosen value and whether answers tie.

    Both are `[prompts, draws]`. The chosen value is the mean over tied answers of the mean over
    their drawn candidates. Those without an answer have a column of their own, the last, that any
    vote beats.
    """
    shape = drawn.shape[:2]
    flat = drawn.reshape(len(drawn), -1)
    answers, weights, values = (
        np.ascontiguousarray(np.take_along_axis(column, flat, axis=1).reshape(-1, drawn.shape[2]).T)
        for column in ballots
    )
    count = answers.shape[1]
    columns = int(ballots[0].max()) + 2
    totals, sums, members = np.zeros((3, count * columns))
    totals[columns - 1 :: columns] = -1.0
    rows = np.arange(count) * columns
    best, top, tied = np.full(count, -2.0), np.zeros(count), np.zeros(count)
    for answer, weight, value in zip(answers, weights, values, strict=True):
        place = rows + np.where(answer < 0, columns - 1, answer)
        members_before, sum_before, total_before = members[place], sums[place], totals[place]
        mean_before = sum_before / np.maximum(members_before, 1)
        total, sums[place] = total_before + weight, sum_before + value
        totals[place], members[place] = total, members_before + 1
        mean = sums[place] / members[place]
        slack = ROUNDING * np.abs(best)
        ahead, level = total > best + slack, total >= best - slack
        was_level = (members_before > 0) & (total_before >= best - slack)
        top += np.where(level, mean, 0.0) - np.where(was_level, mean_before, 0.0)
        top = np.where(ahead, mean, top)
        tied = np.where(ahead, 1.0, tied + (level & ~was_level))
        best = np.where(ahead, total, best)
        yield (top / tied).reshape(shape), (tied > 1).reshape(shape)
