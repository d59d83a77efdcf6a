"""The vote counted draw by draw: over every subset of a size, or over random permutations."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bestofn.estimators.arrays import Array, Whole

# Sums of the same weights in another order differ by rounding alone; totals so close are tied.
ROUNDING = 1e-12
BLOCK = 2**19  # drawn candidates that are counted at once


@dataclass(frozen=True, slots=True)
class Ballots:
    """The pools of several prompts, as the count sees them.

    Attributes:
        answers: `[prompts, M]`, the number of the answer, from 0 up within its prompt; -1: none.
        weights: `[prompts, M]`, what the candidate's vote counts; 0 where it has no answer.
        values: `[prompts, M]`.
    """

    answers: Whole
    weights: Array
    values: Array

    def rows(self, start: int, stop: int) -> "Ballots":
        part = slice(start, stop)
        return Ballots(self.answers[part], self.weights[part], self.values[part])


def enumerate_draws(ballots: Ballots, n: int) -> tuple[Array, Array]:
    """Mean value of the chosen and tie rate over all subsets of size n; each `[prompts]`."""
    prompts, pool = ballots.answers.shape
    subsets = np.array(list(combinations(range(pool), n)))
    values, ties = np.empty(prompts), np.empty(prompts)
    at_once = max(1, BLOCK // subsets.size)
    for start in range(0, prompts, at_once):
        part = ballots.rows(start, start + at_once)
        drawn = np.broadcast_to(subsets, (len(part.answers), *subsets.shape))
        *_, (chosen, tied) = _count(part, drawn)
        values[start : start + at_once] = chosen.mean(axis=1)
        ties[start : start + at_once] = tied.mean(axis=1)
    return values, ties


def sample_draws(
    ballots: Ballots, sizes: Whole, draws: int, seed: int
) -> tuple[Array, Array, Array]:
    """The same for all sizes from random permutations, whose first n are the draw of size n.

    Returns:
        Mean values, tie rates, and the variance of those mean values: `[prompts, len(sizes)]`.
    """
    prompts, pool = ballots.answers.shape
    rng = np.random.default_rng(seed)
    values, ties, spread = np.empty((3, prompts, len(sizes)))
    at_once = max(1, BLOCK // (draws * pool))
    for start in range(0, prompts, at_once):
        part = ballots.rows(start, start + at_once)
        rows = slice(start, start + at_once)
        drawn = rng.random((len(part.answers), draws, pool)).argsort(axis=2)
        for n, (chosen, tied) in enumerate(_count(part, drawn[:, :, : sizes.max()]), start=1):
            for column in np.flatnonzero(sizes == n):
                values[rows, column] = chosen.mean(axis=1)
                ties[rows, column] = tied.mean(axis=1)
                spread[rows, column] = chosen.var(axis=1, ddof=1) / draws
    return values, ties, spread


def _count(ballots: Ballots, drawn: NDArray[np.intp]) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
    """Counts vote by vote, and after each gives the chosen value and whether answers are tied.

    The chosen value is the mean over tied answers of the mean over their drawn candidates. Those
    without an answer have a column of their own, the last, that any vote beats.

    Args:
        ballots: Of some prompts.
        drawn: `[prompts, draws, n]`, which candidates, one after another.

    Yields:
        n times two arrays `[prompts, draws]`.
    """
    shape = drawn.shape[:2]
    flat = drawn.reshape(len(drawn), -1)
    answers, weights, values = (
        np.ascontiguousarray(np.take_along_axis(column, flat, axis=1).reshape(-1, drawn.shape[2]).T)
        for column in (ballots.answers, ballots.weights, ballots.values)
    )
    count = answers.shape[1]
    columns = int(ballots.answers.max()) + 2
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
