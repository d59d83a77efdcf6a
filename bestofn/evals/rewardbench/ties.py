"""The rule of the subset Ties: several right responses should score alike, and above wrong ones.

Its items come in pairs: "ref:K" has one right response, "tied:K" has several to a like prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isnan, tanh

import numpy as np
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.items import GOLD, scores_of
from bestofn.types import Pool

Array = NDArray[np.float64]

WEIGHTS = np.array([0.30, 0.30, 0.20, 0.20, 0.01])


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pair of items adds to each term of the score; NaN where it has no say in it.

    Attributes:
        tied: Whether all right responses of the tied item are above all wrong ones.
        ref: Whether the right response of the reference item is.
        apart: Whether the tied item's right responses are closer to each other than to the wrong
            ones.
        apart_both: The same, with the smaller of the two items' distances from the wrong ones.
        margin: By how much they are, squeezed to between -1 and 1.
    """

    tied: float
    ref: float
    apart: float
    apart_both: float
    margin: float


@dataclass(frozen=True, slots=True)
class _Margins:
    """Of one item; NaN where a score failed.

    Attributes:
        within: From the worst right response to the best one.
        above: From the best wrong response to the worst right one.
    """

    within: float
    above: float


def ties_score(
    pools: Sequence[Pool], name: str, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, Array]:
    """The score of the subset and the same of resampled pairs, `[resamples]`.

    0.30 accuracy on tied items + 0.30 accuracy on reference items + 0.20 share of pairs whose tied
    item's right responses differ by less than what parts them from the wrong ones + 0.20 the same
    with the smaller distance of both items + 0.01 mean margin. An item with a failed score is not
    accurate, and its margins are no evidence.

    Args:
        pools: The items, in any order.
        name: The scores'.
        resamples: Their number.
        seed: Of the resampling.

    Raises:
        ConfigError: an id is of another form.

    Source: the code of allenai/reward-bench, `process_single_model`.
    """
    terms = np.array([[getattr(t, f.name) for f in fields(t)] for t in _terms(pools, name)])
    known = ~np.isnan(terms)
    values = np.where(known, terms, 0.0)
    pairs = len(terms)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples)
    whole = _score(np.ones((1, pairs)), values, known)
    return float(whole[0]), _score(counts.astype(np.float64), values, known)


def _score(counts: Array, values: Array, known: NDArray[np.bool_]) -> Array:
    """The weighted sum of each term's mean over the pairs that have a say in it, 0 of none."""
    told: Array = counts @ known.astype(np.float64)
    means: Array = np.divide(counts @ values, told, out=np.zeros_like(told), where=told > 0)
    score: Array = means @ WEIGHTS
    return score


def _terms(pools: Sequence[Pool], name: str) -> list[Terms]:
    sides: dict[str, dict[str, _Margins]] = {"ref": {}, "tied": {}}
    for pool in pools:
        kind, colon, number = str(pool.prompt.columns["item"]).partition(":")
        if kind not in sides or not colon:
            raise ConfigError(
                "items of the subset Ties have the ids 'ref:K' and 'tied:K', not "
                f"{pool.prompt.columns['item']!r}"
            )
        sides[kind][number] = _margins(pool, name)
    ref, tied = sides["ref"], sides["tied"]
    return [_pair(ref.get(number), tied.get(number)) for number in dict.fromkeys([*ref, *tied])]


def _margins(pool: Pool, name: str) -> _Margins:
    values = [score.value for score in scores_of(pool, name)]
    right = [score.value > 0 for score in scores_of(pool, GOLD)]
    if any(map(isnan, values)):
        return _Margins(np.nan, np.nan)
    correct = [value for value, ok in zip(values, right, strict=True) if ok]
    incorrect = [value for value, ok in zip(values, right, strict=True) if not ok]
    return _Margins(max(correct) - min(correct), min(correct) - max(incorrect))


def _pair(ref: _Margins | None, tied: _Margins | None) -> Terms:
    """The terms; a comparison with NaN is false, and so counts against the item."""
    tied_right = np.nan if tied is None else float(tied.above > 0)
    ref_right = np.nan if ref is None else float(ref.above > 0)
    if ref is None or tied is None:
        return Terms(tied_right, ref_right, np.nan, np.nan, np.nan)
    both = float(np.minimum(ref.above, tied.above))
    return Terms(
        tied_right,
        ref_right,
        float(tied.above > tied.within),
        float(both > tied.within),
        _squeezed(both, tied.within),
    )


def _squeezed(above: float, within: float) -> float:
    """tanh(above / within - 1); 0 where that is not defined."""
    if isnan(above) or isnan(within):
        return 0.0
    if within == 0:
        return float(np.sign(above))
    return tanh(above / within - 1)
