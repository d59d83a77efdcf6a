"""What one proxy selects: expectations over all draws of N from the pool, prompt by prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.estimators import best_of_n, expected_cost, expected_votes, failure_rate, tie_rate
from bestofn.types import Candidate, Pool
from bestofn.verifiers.base import load_answer

Array = NDArray[np.float64]
Answer = Callable[[str], str]
ValueOf = Callable[[Pool], list[float]]

RANDOM, ORACLE, MAJORITY, WEIGHTED = "random", "oracle", "majority", "weighted:"
FROM_GOLD = (RANDOM, ORACLE)
"""Proxies that need no score of their own."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One proxy on some prompts.

    Attributes:
        gold: `[prompts, ns]`, gold value of the selected candidate.
        proxy: `[prompts, ns]`, the proxy's own value of it, given that any candidate has one;
            NaN where none has. None for votes and for a random choice.
        failures: `[prompts, ns]`, probability that no candidate drawn has a score.
        ties: `[prompts, ns]`, probability that several share the best one.
        scored_tokens: `[prompts, ns]`, tokens that the scoring model computes.
        monte_carlo_error: `[ns]`, standard error of the mean of `gold` where it was simulated,
            0 where it is exact.
    """

    gold: Array
    proxy: Array | None
    failures: Array
    ties: Array
    scored_tokens: Array
    monte_carlo_error: Array


BY_PROMPT = ("gold", "proxy", "failures", "ties", "scored_tokens")


def expect(
    pools: Sequence[Pool],
    proxy: str,
    gold: str | ValueOf,
    ns: Sequence[int],
    answer: str | Answer = str.strip,
    seed: int = 0,
) -> Expected:
    """The expectations of one proxy; pools may differ in size.

    Args:
        pools: Each of at least max(ns) candidates, whose gold values are all known.
        proxy: A score's name, or "random", "oracle", "majority", "weighted:SCORE".
        gold: The name of the gold score, or a function that gives a pool's values instead.
        ns: Sizes N.
        answer: What votes compare; a function, or a verifier's name such as "math".
        seed: Of votes that have to be simulated.

    Raises:
        ConfigError: a candidate lacks the score, a vote's weight is negative, or there is no such
            verifier.
    """
    reads = load_answer(answer)
    sizes = [len(pool.candidates) for pool in pools]
    blocks = [np.flatnonzero(np.equal(sizes, size)) for size in dict.fromkeys(sizes)]
    parts = [_of_one_size([pools[i] for i in b], proxy, gold, ns, reads, seed) for b in blocks]
    order = np.argsort(np.concatenate(blocks))

    def joined(field: str) -> Any:
        values = [getattr(part, field) for part in parts]
        return None if values[0] is None else np.concatenate(values)[order]

    # Blocks are simulated apart: the errors of their sums add in squares.
    shares = np.array([len(block) / len(pools) for block in blocks])[:, None]
    errors = shares * [part.monte_carlo_error for part in parts]
    by_prompt = {name: joined(name) for name in BY_PROMPT}
    return Expected(**by_prompt, monte_carlo_error=np.sqrt((errors**2).sum(axis=0)))


def _of_one_size(
    pools: Sequence[Pool],
    proxy: str,
    gold: str | ValueOf,
    ns: Sequence[int],
    answer: Answer,
    seed: int,
) -> Expected:
    truth = score_matrix(pools, gold) if isinstance(gold, str) else np.array([*map(gold, pools)])
    none, exact = np.zeros((len(pools), len(ns))), np.zeros(len(ns))
    if proxy == RANDOM:
        value = np.repeat(truth.mean(axis=1, keepdims=True), len(ns), axis=1)
        return Expected(value, None, none, none, none, exact)
    if proxy == MAJORITY or proxy.startswith(WEIGHTED):
        return _of_votes(pools, proxy, truth, ns, answer, seed)
    scores = truth if proxy == ORACLE else score_matrix(pools, proxy)
    failures = failure_rate(scores, ns)
    with np.errstate(invalid="ignore"):  # no value where no candidate has one
        best = best_of_n(scores, np.nan_to_num(scores), ns) / np.where(
            failures < 1, 1 - failures, np.nan
        )
    return Expected(
        best_of_n(scores, truth, ns),
        best,
        failures,
        tie_rate(scores, ns),
        none if proxy == ORACLE else _scored_tokens(pools, proxy, ns),
        exact,
    )


def _of_votes(
    pools: Sequence[Pool], proxy: str, truth: Array, ns: Sequence[int], answer: Answer, seed: int
) -> Expected:
    weighing = None if proxy == MAJORITY else proxy.removeprefix(WEIGHTED)
    weights = None if weighing is None else score_matrix(pools, weighing)
    if weights is not None and np.nanmin(weights, initial=0.0) < 0:
        raise ConfigError(
            f"a vote's weight cannot be negative, but {weighing!r} has negative values; weigh "
            "with a reward from 0 on, such as 'flip'"
        )
    groups = _groups(
        pools, lambda c: None if c.finish_reason == "error" else answer(c.text) or None
    )
    voters = groups >= 0 if weights is None else (groups >= 0) & ~np.isnan(weights)
    votes = expected_votes(groups, truth, ns, weights, seed=seed)
    no_cost = np.zeros_like(votes.values)
    return Expected(
        votes.values,
        None,
        failure_rate(np.where(voters, 0.0, np.nan), ns),
        votes.ties,
        no_cost if weighing is None else _scored_tokens(pools, weighing, ns),
        votes.error,
    )


def _scored_tokens(pools: Sequence[Pool], name: str, ns: Sequence[int]) -> Array:
    """Equal responses are scored once: their cost is paid when the first of them is drawn."""
    cost = np.array(
        [[c.scores[name].usage.computed_tokens for c in pool.candidates] for pool in pools], float
    )
    return expected_cost(_groups(pools, lambda c: (c.error, c.text)), cost, ns)


def _groups(pools: Sequence[Pool], key: Callable[[Candidate], object]) -> NDArray[np.int64]:
    """Equal numbers for candidates of a prompt with equal keys, -1 for the key None."""
    rows = []
    for pool in pools:
        numbers: dict[object, int] = {}
        keys = map(key, pool.candidates)
        rows.append([-1 if k is None else numbers.setdefault(k, len(numbers)) for k in keys])
    return np.array(rows)


def score_matrix(pools: Sequence[Pool], name: str) -> Array:
    """`[prompts, M]`, NaN for failed scores; the pools are of equal size.

    Raises:
        ConfigError: a candidate has no score of that name.
    """
    return np.array([scores_of(pool, name) for pool in pools])


def scores_of(pool: Pool, name: str) -> list[float]:
    """The values of one pool, by index.

    Raises:
        ConfigError: a candidate has no score of that name.
    """
    try:
        return [candidate.scores[name].value for candidate in pool.candidates]
    except KeyError:
        lacking = next(c for c in pool.candidates if name not in c.scores)
        known = sorted(score for score in lacking.scores if "@" not in score)
        raise ConfigError(
            f"candidate {lacking.index} of prompt {pool.prompt.id!r} has no score {name!r}, only "
            f"{', '.join(known) or 'none at all'}; add it with `bestofn score`"
        ) from None


def unknown_gold(pool: Pool, name: str) -> str | None:
    """Why a pool's gold values are not all known, None if they are."""
    try:
        values = scores_of(pool, name)
    except ConfigError as error:
        return str(error)
    for candidate, value in zip(pool.candidates, values, strict=True):
        if isnan(value):
            reason = candidate.scores[name].reason or "no value"
            return f"candidate {candidate.index} has no gold value: {reason}"
    return None
