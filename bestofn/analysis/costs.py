"""What drawing and scoring N candidates costs: tokens, seconds and money."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import nan
from operator import attrgetter
from statistics import fmean

import numpy as np

from bestofn.analysis.proxies import Array
from bestofn.config.evaluations import TokenKind
from bestofn.estimators import best_of_n, expected_cost
from bestofn.types import Candidate, Pool, Usage

Prices = Mapping[TokenKind, float]
"""Of a million tokens, by "input", "cached_input" and "output": answers that are scored are input,
what is not named costs nothing."""


def price(usage: Usage, prices: Prices) -> float:
    """What this usage costs, in the currency of the prices."""
    new = usage.prompt_tokens - usage.cached_tokens + usage.scored_tokens + usage.repeated_tokens
    counts: Mapping[TokenKind, int] = {
        "input": new,
        "cached_input": usage.cached_tokens,
        "output": usage.generated_tokens,
    }
    return sum(prices.get(kind, 0.0) * count for kind, count in counts.items()) / 1e6


def drawing_price(candidate: Candidate, prices: Prices, tokens: int | None = None) -> float:
    """What drawing a candidate costs, by default all its tokens; NaN where its usage is unknown."""
    usage = candidate.usage
    if candidate.error is None and not usage.generated_tokens:
        return nan
    return price(usage if tokens is None else replace(usage, generated_tokens=tokens), prices)


def drawing_seconds(candidate: Candidate) -> float:
    """From its request to its end, NaN where that was not measured."""
    return candidate.usage.seconds or (nan if candidate.error is None else 0.0)


def spent(
    pools: Sequence[Pool], score: str | None, ns: Sequence[int], prices: Prices
) -> list[Array]:
    """Tokens drawn and scored, money, and seconds to the last score, `[prompts, ns]` each.

    NaN where one is not known. Equal responses are scored once: their cost is paid when the first
    of them is drawn.
    """
    sizes = np.array(ns, dtype=np.float64)
    drawn = [[0 if c.error else c.token_count for c in pool.candidates] for pool in pools]
    generated = np.array(drawn, dtype=np.float64).mean(axis=1, keepdims=True) * sizes
    paid = np.array([[drawing_price(c, prices) for c in pool.candidates] for pool in pools])
    money = paid.mean(axis=1, keepdims=True) * sizes
    seconds = np.array([[drawing_seconds(c) for c in pool.candidates] for pool in pools])
    if score is None:
        return [generated, np.zeros_like(money), money, _longest(seconds, ns)]
    usages = [[c.scores[score].usage for c in pool.candidates] for pool in pools]
    texts = [[(c.error, c.text) for c in pool.candidates] for pool in pools]
    groups = np.array([[row.index(text) for text in row] for row in texts])
    tokens, costs = (
        expected_cost(groups, np.array([[*map(measure, row)] for row in usages], float), ns)
        for measure in (attrgetter("computed_tokens"), partial(price, prices=prices))
    )
    seconds = seconds + [[usage.seconds for usage in row] for row in usages]
    return [generated, tokens, money + costs, _longest(seconds, ns)]


def _longest(seconds: Array, ns: Sequence[int]) -> Array:
    """`[prompts, ns]`, of the slowest of n candidates; NaN where one is not known."""
    known = np.isfinite(seconds).all(axis=1, keepdims=True)
    finite = np.nan_to_num(seconds)
    return np.where(known, best_of_n(finite, finite, ns), nan)


def throughput_seconds(
    pools: Sequence[Pool], score: str | None, ns: Sequence[int], generated: Array, scored: Array
) -> Array | None:
    """Of the run that made the pools, in proportion to the tokens that are drawn and scored.

    Without token counts drawing takes them in proportion to N. None where they are not known.
    """
    stages = {"sample", *filter(None, [score])}
    if not all(stages <= pool.seconds.keys() for pool in pools):
        return None
    counts = [c.token_count or 0 for pool in pools for c in pool.candidates]
    share = generated * len(pools) / max(sum(counts), 1)
    if np.isnan(generated).any():
        share = np.array(ns) * len(pools) / len(counts)
    seconds = fmean(pool.seconds["sample"] for pool in pools) * share
    if score is not None:
        usages = [c.scores[score].usage for pool in pools for c in pool.candidates]
        whole = sum(usage.computed_tokens for usage in usages) / len(pools)
        seconds = seconds + fmean(pool.seconds[score] for pool in pools) * scored / max(whole, 1.0)
    return np.asarray(seconds)
