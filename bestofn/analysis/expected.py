"""What one proxy selects: expectations over all draws of N from the pool, prompt by prompt."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

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
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, pool in enumerate(pools):
        by_size[len(pool.candidates)].append(place)
    places = [place for block in by_size.values() for place in block]
    parts = [
        _expect_block([pools[place] for place in block], proxy, gold, ns, reads, seed)
        for block in by_size.values()
    ]
    order = np.argsort(places)

    def joined(field: str) -> Array:
        whole: Array = np.concatenate([getattr(part, field) for part in parts])[order]
        return whole

    # Blocks are simulated apart: the errors of their sums add in squares.
    shares = np.array([len(block) for block in by_size.values()])[:, None] / len(pools)
    errors = np.array([part.monte_carlo_error for part in parts])
    return Expected(
        joined("gold"),
        None if parts[0].proxy is None else joined("proxy"),
        joined("failures"),
        joined("ties"),
        joined("scored_tokens"),
        np.sqrt(((shares * errors) ** 2).sum(axis=0)),
    )


def _expect_block(
    pools: Sequence[Pool],
    proxy: str,
    gold: str | ValueOf,
    ns: Sequence[int],
    answer: Answer,
    seed: int,
) -> Expected:
    truth = score_matrix(pools, gold) if isinstance(gold, str) else np.array([*map(gold, pools)])
    none = np.zeros((len(pools), len(ns)))
    exact = np.zeros(len(ns))
    if proxy == RANDOM:
        value = np.repeat(truth.mean(axis=1, keepdims=True), len(ns), axis=1)
        return Expected(value, None, none, none, none, exact)
    if proxy == MAJORITY or proxy.startswith(WEIGHTED):
        return _expect_votes(pools, proxy, truth, ns, answer, seed)
    scores = truth if proxy == ORACLE else score_matrix(pools, proxy)
    return Expected(
        best_of_n(scores, truth, ns),
        _conditional(scores, ns),
        failure_rate(scores, ns),
        tie_rate(scores, ns),
        none if proxy == ORACLE else _scored_tokens(pools, proxy, ns),
        exact,
    )


def _expect_votes(
    pools: Sequence[Pool], proxy: str, truth: Array, ns: Sequence[int], answer: Answer, seed: int
) -> Expected:
    weighing = proxy.removeprefix(WEIGHTED) if proxy != MAJORITY else None
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
    cost = np.zeros_like(votes.values)
    return Expected(
        votes.values,
        None,
        failure_rate(np.where(voters, 0.0, np.nan), ns),
        votes.ties,
        cost if weighing is None else _scored_tokens(pools, weighing, ns),
        votes.error,
    )


def _conditional(scores: Array, ns: Sequence[int]) -> Array:
    """Expected best score, given that there is any."""
    some = 1.0 - failure_rate(scores, ns)
    with np.errstate(invalid="ignore"):
        value: Array = best_of_n(scores, np.nan_to_num(scores), ns) / np.where(
            some > 0, some, np.nan
        )
    return value


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
