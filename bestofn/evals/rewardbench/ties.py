"""The rule of the subset Ties: several right responses should score alike, and above wrong ones.

Its items come in pairs: "ref:K" has one right response, "tied:K" has several to a like prompt.
"""

from collections.abc import Sequence
from math import nan, tanh

import numpy as np
from numpy.typing import NDArray

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.items import GOLD, scores_of
from bestofn.types import Pool

Array = NDArray[np.float64]
Margins = tuple[float, float]
"""Of one item, NaN where a score failed: from its worst right response to its best one, and from
its best wrong response to its worst right one."""

WEIGHTS = np.array([0.30, 0.30, 0.20, 0.20, 0.01])


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
    ref, tied = _sides(pools, name)
    numbers = dict.fromkeys([*ref, *tied])
    terms = np.array([_terms(ref.get(number), tied.get(number)) for number in numbers])
    known = ~np.isnan(terms)
    values = np.where(known, terms, 0.0)
    pairs = len(terms)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=resamples)
    # The first row is all pairs once. Each term is a mean over the pairs that have it, 0 of none.
    counts = np.vstack([np.ones((1, pairs)), counts])
    having = counts @ known.astype(np.float64)
    means = np.divide(counts @ values, having, out=np.zeros_like(having), where=having > 0)
    scores: Array = means @ WEIGHTS
    return float(scores[0]), scores[1:]


def _sides(pools: Sequence[Pool], name: str) -> tuple[dict[str, Margins], dict[str, Margins]]:
    """The margins of reference items and of tied ones, by the number of their pair."""
    sides: dict[str, dict[str, Margins]] = {"ref": {}, "tied": {}}
    for pool in pools:
        item = str(pool.prompt.columns["item"])
        kind, colon, number = item.partition(":")
        if kind not in sides or not colon:
            raise ConfigError(
                f"items of the subset Ties have the ids 'ref:K' and 'tied:K', not {item!r}"
            )
        sides[kind][number] = _margins(pool, name)
    return sides["ref"], sides["tied"]


def _margins(pool: Pool, name: str) -> Margins:
    values = np.array([score.value for score in scores_of(pool, name)])
    right = np.array([score.value > 0 for score in scores_of(pool, GOLD)])
    if np.isnan(values).any():
        return nan, nan
    worst = float(values[right].min())
    return float(values[right].max()) - worst, worst - float(values[~right].max())


def _terms(ref: Margins | None, tied: Margins | None) -> tuple[float, ...]:
    """What a pair adds to each term, in the order of WEIGHTS; NaN where it has no such term.

    A comparison with NaN is false, and so counts against the item.
    """
    tied_right = nan if tied is None else float(tied[1] > 0)
    ref_right = nan if ref is None else float(ref[1] > 0)
    if ref is None or tied is None:
        return tied_right, ref_right, nan, nan, nan
    within, above = tied
    both = float(np.minimum(ref[1], above))
    apart, apart_both = float(above > within), float(both > within)
    return tied_right, ref_right, apart, apart_both, _squeezed(both, within)


def _squeezed(above: float, within: float) -> float:
    """tanh(above / within - 1); 0 where that is not defined."""
    if np.isnan([above, within]).any():
        return 0.0
    return tanh(above / within - 1) if within else float(np.sign(above))
