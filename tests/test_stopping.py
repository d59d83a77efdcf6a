"""The rule that stops drawing: its formula against simulation, its prior, failures, errors."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bestofn import ExpectedGain
from bestofn.errors import ConfigError

SCORES = st.one_of(st.floats(-2, 2), st.just(nan))
DRAWN = arrays.arrays(np.float64, st.integers(1, 12), elements=SCORES)
PRIORS = st.none() | arrays.arrays(np.float64, st.integers(1, 12), elements=st.floats(-2, 2))
WEIGHTS = st.floats(0.01, 100) | st.just(inf)


def urn(
    seen: list[float], prior: Any, weight: float, draws: int, rng: np.random.Generator
) -> list[float]:
    """Goes on drawing from a Dirichlet process by Polya's urn."""
    scores = list(seen)
    for _ in range(draws):
        new = rng.random() < weight / (weight + len(scores))
        scores.append(float(prior(rng) if new else rng.choice(scores)))
    return scores[len(seen) :]


# --- the formula ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.5, 3.0])
@pytest.mark.parametrize("seen", [[0.3], [0.1, 0.6, 0.2], [0.0, 0.0, 0.0, 0.9]])
def test_the_gain_is_that_of_polyas_urn(seen: list[float], weight: float) -> None:
    rng = np.random.default_rng(0)
    pool = np.array([0.05, 0.4, 0.4, 0.95])
    for prior, draw in ((None, lambda r: r.random()), (pool, lambda r: r.choice(pool))):
        gain = ExpectedGain(0.0, prior=prior, weight=weight).gain(seen)[-1]
        best = max(seen)
        found = [max(urn(seen, draw, weight, 1, rng)[0] - best, 0) for _ in range(20_000)]
        assert gain == pytest.approx(np.mean(found), abs=4 * np.std(found) / len(found) ** 0.5)


def test_by_hand() -> None:
    # After one draw of 0.5: 1 / (1 + 1) * 0.5 ** 2 / 2; after the second, 1 / 3 of 0.2 ** 2 / 2.
    assert ExpectedGain(0.0).gain([0.5, 0.8]) == pytest.approx([0.0625, 0.04 / 6])
    # Of three scores, one exceeds 1, by 3.
    assert ExpectedGain(0.0, prior=[0, 1, 4], weight=inf).gain([1.0]) == pytest.approx([1.0])
    assert ExpectedGain(0.0, prior=[-5.0, -3.0]).gain([-7.0]) == pytest.approx([1.5])


@given(DRAWN, PRIORS, WEIGHTS)
def test_the_gain_never_rises_and_never_is_negative(scores: Any, prior: Any, weight: float) -> None:
    gain = ExpectedGain(0.0, prior=prior, weight=weight).gain(scores)
    assert gain.shape == scores.shape
    assert (gain >= 0).all()
    assert (np.diff(gain) <= 1e-12).all()


# --- ceiling, failures, errors --------------------------------------------------------------------


def test_the_top_of_the_prior_stops_at_any_cost() -> None:
    assert ExpectedGain(0.0).stops([0.2, 0.99, 1.0, 0.1]).tolist() == [False, False, True, True]
    rule = ExpectedGain(0.0, prior=[-4.0, -1.5, -2.0], weight=100)
    assert rule.stops([-3.0, -1.6, -1.5]).tolist() == [False, False, True]


def test_a_failed_score_counts_and_gains_nothing() -> None:
    rule = ExpectedGain(0.0)
    assert rule.gain([0.5, nan, nan])[-1] == rule.gain([0.5, 0.1, 0.2])[-1]
    assert rule.gain([nan, nan])[-1] == rule.gain([0.0, 0.0])[-1] > 0
    pool = [-3.0, -1.0]
    failing = ExpectedGain(0.0, prior=[*pool, nan, nan])
    assert failing.gain([-2.0]) == pytest.approx(ExpectedGain(0.0, prior=pool).gain([-2.0]) / 2)
    assert failing.gain([nan]) == failing.gain([-3.0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cost": -0.1}, "cost"),
        ({"cost": nan}, "cost"),
        ({"cost": inf}, "cost"),
        ({"cost": 0.1, "weight": 0.0}, "weight"),
        ({"cost": 0.1, "weight": nan}, "weight"),
        ({"cost": 0.1, "prior": []}, "prior"),
        ({"cost": 0.1, "prior": [nan]}, "prior"),
        ({"cost": 0.1, "prior": [0.0, -inf]}, "prior"),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ExpectedGain(**options)
