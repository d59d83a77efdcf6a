"""What proxies and gold say of a pool's candidates."""

from collections.abc import Callable, Sequence
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.rewards.baselines import Unit, length
from bestofn.selectors import Selector, load_selector
from bestofn.types import Pool

Array = NDArray[np.float64]

RANDOM, ORACLE, MAJORITY = "random", "oracle", "majority"
FROM_GOLD = (RANDOM, ORACLE)
"""Proxies that need no score of their own."""
LENGTHS = {"longest": 1.0, "shortest": -1.0}
BASELINES = (*LENGTHS, "mean-logprob")
"""Proxies that a pool's candidates carry in themselves."""


READING = ("weighted", "soft", "pessimistic", "mob")
"""Selectors of a score, as in "soft:flip" or "soft=0.2:flip"."""
DRAWING = ("adaptive", "reject")
"""Rules that end drawing early, as in "adaptive=0.01:flip", see `early.Drawing`."""


def parts(proxy: str) -> tuple[list[str], str | None]:
    """The rules that a proxy names before a score, and the score, None if it reads none.

    Without a rule the highest value is chosen.
    """
    first, colon, score = proxy.partition(":")
    name = first.partition("=")[0]
    if colon and name in READING:
        return [first], score
    if colon and name in DRAWING:
        rules, read = parts(score)
        return [first, *rules], read
    if proxy == MAJORITY or name == "mbr":
        return [proxy], None
    return [], None if proxy in (*FROM_GOLD, *BASELINES) else proxy


def score_of(proxy: str) -> str | None:
    """The name of the score that a proxy reads, None if it reads none."""
    return parts(proxy)[1]


def selector_of(proxy: str, answer: Callable[[str], str]) -> Selector | None:
    """What a proxy chooses with, None where the highest value is chosen.

    Raises:
        ConfigError: the selector's parameter makes no sense.
    """
    rules = [rule for rule in parts(proxy)[0] if rule.partition("=")[0] not in DRAWING]
    return load_selector(rules[0], answer) if rules else None


def scores_of(pool: Pool, name: str) -> list[float]:
    """The values of one pool, by index; NaN for failed scores.

    Raises:
        ConfigError: a candidate has no score of that name.
    """
    for candidate in pool.candidates:
        if name not in candidate.scores:
            known = ", ".join(sorted(score for score in candidate.scores if "@" not in score))
            limit = name.rpartition("@")[2]
            option = f" --limits {limit}" if "@" in name and limit.isdecimal() else ""
            raise ConfigError(
                f"candidate {candidate.index} of prompt {pool.prompt.id!r} has no score {name!r}, "
                f"only {known or 'none at all'}; add it with `bestofn score{option}`"
            )
    return [candidate.scores[name].value for candidate in pool.candidates]


def score_matrix(pools: Sequence[Pool], name: str) -> Array:
    """`[prompts, M]` of `scores_of`; the pools are of equal size."""
    return np.array([scores_of(pool, name) for pool in pools])


def values_of(pool: Pool, proxy: str, unit: Unit) -> list[float]:
    """What a proxy reads of each candidate, as `scores_of`; lengths are in this unit."""
    if proxy in LENGTHS:
        sign, drawn = LENGTHS[proxy], pool.candidates
        return [sign * length(c, unit) if c.whole else nan for c in drawn]
    if proxy == "mean-logprob" and proxy not in pool.candidates[0].scores:
        return [nan if c.mean_logprob is None else c.mean_logprob for c in pool.candidates]
    name = score_of(proxy)
    return [nan] * len(pool.candidates) if name is None else scores_of(pool, name)


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
