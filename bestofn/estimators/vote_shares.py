"""The exact vote: what each answer's chance to win is, from the sizes of the answers alone.

An answer that c of the M candidates give gets j votes in C(c, j) ways, so ways to draw are counted
by generating functions in x, whose exponent is the number drawn. For k votes to win, every answer
has fewer (sum of C(c, j) x^j for j < k) or as many, and is then tied: y C(c, k) x^k. The winner's
share among t + 1 tied is 1 / (t + 1), the integral of y^t over [0, 1], which Gauss-Legendre nodes
give exactly: the product over the other answers is taken at each node. Every term is positive, so
nothing cancels, and no coefficient exceeds C(M, N), so nothing overflows up to M = 1,000.
"""

from functools import cache
from math import comb

import numpy as np

from bestofn.estimators.arrays import Array, Whole

LARGEST_POOL = 1_000  # C(1,000, 500) is 3e299


def shares(sizes: Whole) -> tuple[Array, Array]:
    """How a vote among N of a pool falls out, for all N.

    Args:
        sizes: `[M]`, for each candidate how many give its answer (itself counted), 0 where it
            gives none.

    Returns:
        `[M, M]`, at row i and column N - 1 the probability that candidate i is chosen, and `[M]`,
        that several answers share the most votes.
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
    """Ways to draw N in which an answer wins, a tie counted by its share; N from 0 to M.

    Args:
        distinct: `[D]`, the sizes that answers have, rising.
        many: `[D]`, how many answers have each.
        failed: Candidates without an answer.

    Returns:
        `[D, M + 1]`, for one answer of each size, and `[M + 1]`, ways in which any wins untied.
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
    """For each size, the product over all answers but one of that size: `[D, nodes, degree + 1]`.

    Args:
        able: The sizes of answers that can have so many votes.
        many: How many answers there are of each.
        votes: Most that any answer has.
        rest: All other candidates: they cannot reach it, and are drawn freely.
        nodes: Values of y.
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
    votes = len(factor) - 1
    product = np.zeros((*rows, terms + votes))
    for drawn in range(votes):
        product[..., drawn : drawn + terms] += factor[drawn] * stack
    product[..., votes:] += (nodes * factor[votes])[:, None] * stack
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
