"""When another candidate is no longer worth drawing."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bestofn.errors import ConfigError
from bestofn.identity import fingerprint

Array = NDArray[np.float64]


class ExpectedGain:
    """Stops when one more candidate is expected to raise the best score by `cost` at most.

    The scores of a prompt are draws from an unknown distribution, itself a draw from a Dirichlet
    process around the prior F0 (Ferguson 1973). After n draws with the best score b, the next one
    is one of those seen with probability n / (weight + n), and otherwise a new one from F0:

        gain(b, n) = weight / (weight + n) * E[max(X - b, 0)], X from F0

    It never rises with n or b, so looking one candidate ahead is as good as looking ahead all the
    way (the monotone case of Chow, Robbins and Siegmund 1971; for search with such a prior see
    Rothschild 1974, Bikhchandani and Sharma 1996), and what stops one candidate stops a round.

    A failed score is a draw of the lowest score that the prior knows. A best score at the top of
    the prior stops at any cost; cost 0 stops there alone, which changes no selection where the top
    is the reward's ceiling.

    Args:
        cost: What a candidate has to gain to be worth drawing, in units of the reward.
        prior: Scores from F0, such as those of all candidates of other prompts, NaN where scoring
            failed; any shape. By default F0 is uniform on [0, 1], as for `FLIPReward`.
        weight: How many draws the prior counts for. A small one soon trusts a prompt's own
            scores; infinity believes the prior alone and stops at a threshold of the best score.

    Raises:
        ConfigError: an argument makes no sense.
    """

    def __init__(self, cost: float, *, prior: ArrayLike | None = None, weight: float = 1.0) -> None:
        if not (isfinite(cost) and cost >= 0):
            raise ConfigError(f"cost must be a number from 0 on, not {cost}")
        if not weight > 0:
            raise ConfigError(f"weight must be above 0, not {weight}")
        self.cost = cost
        self.weight = weight
        self._lowest, self._prior_gain, self._prior = _UNIFORM
        if prior is not None:
            self._lowest, self._prior_gain = _empirical(prior)
            ordered = np.sort(np.asarray(prior, dtype=np.float64), axis=None)
            self._prior = fingerprint(ordered.tobytes())

    def identity(self) -> dict[str, Any]:
        """What decisions depend on; see `bestofn.identity`."""
        kind = type(self).__name__
        return {"kind": kind, "cost": self.cost, "weight": self.weight, "prior": self._prior}

    def gain(self, scores: ArrayLike) -> Array:
        """What the next candidate is expected to add to the best score, after each of the draws.

        Args:
            scores: `[..., n]`, in the order of drawing, NaN where scoring failed.

        Returns:
            `[..., n]`, in units of the reward; along the last axis it never rises.
        """
        values = np.asarray(scores, dtype=np.float64)
        best = np.maximum.accumulate(np.where(np.isnan(values), self._lowest, values), axis=-1)
        drawn = np.arange(1, values.shape[-1] + 1)
        expected: Array = self._prior_gain(best) / (1 + drawn / self.weight)
        return expected

    def stops(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether to stop after each of the draws. Arguments and shape: `gain`."""
        return self.gain(scores) <= self.cost


def _uniform_gain(best: Array) -> Array:
    gain: Array = (np.maximum(1 - best, 0) ** 2 - np.maximum(-best, 0) ** 2) / 2
    return gain


_UNIFORM: tuple[float, Callable[[Array], Array], str] = (0.0, _uniform_gain, "uniform")


def _empirical(prior: ArrayLike) -> tuple[float, Callable[[Array], Array]]:
    """The lowest score, and E[max(X - best, 0)]."""
    values = np.asarray(prior, dtype=np.float64).ravel()
    known = values[~np.isnan(values)]
    if not known.size or not np.isfinite(known).all():
        raise ConfigError("the prior needs scores, of which none is infinite")
    ordered = np.sort(np.where(np.isnan(values), known.min(), values))
    # above[i] is the sum of all from place i on.
    above = np.append(np.cumsum(ordered[::-1])[::-1], 0.0)

    def gain(best: Array) -> Array:
        place = np.searchsorted(ordered, best, side="right")
        total = above[place] - best * (len(ordered) - place)
        return np.maximum(total, 0.0) / len(ordered)

    return float(known.min()), gain
