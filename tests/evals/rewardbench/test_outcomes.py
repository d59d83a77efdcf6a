"""What scores make of items: by example, and against a random draw."""

from fractions import Fraction
from itertools import product
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import made

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.accuracy import FIELDS, Cost, Outcome, outcomes

RIGHT = [True, False, False, False]
VALUES = st.sampled_from([0.0, 0.5, 1.0, nan])


@pytest.mark.parametrize(
    ("values", "strict", "credit", "tie", "failures"),
    [
        ([3, 2, 1, 0], 1, 1, 0, 0),
        ([2, 3, 1, 0], 0, 0, 0, 0),
        ([3, 3, 1, 0], 0, 1 / 2, 1, 0),
        ([5, 5, 5, 5], 0, 1 / 4, 1, 0),
        ([1, 3, 3, 0], 0, 0, 1, 0),
        ([nan, 3, 1, 0], 0, 0, 0, 1 / 4),
        ([-9, nan, nan, nan], 1, 1, 0, 3 / 4),
        ([nan, -9, nan, nan], 0, 0, 0, 3 / 4),
        ([nan] * 4, 0, 1 / 4, 0, 1),
    ],
)
def test_by_example(
    values: list[float], strict: float, credit: float, tie: float, failures: float
) -> None:
    found = Outcome.of(values, RIGHT)
    assert found == Outcome(strict, credit, tie, failures, float(failures == 1), 1 / 4)


@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=2, max_size=6))
def test_credit_is_what_a_random_draw_gives(pairs: list[tuple[float, bool]]) -> None:
    values, right = [value for value, _ in pairs], [ok for _, ok in pairs]
    readable = [value for value in values if not isnan(value)]
    # By hand: who can win, each as often as the others.
    winners = [
        ok
        for value, ok in pairs
        if not readable or (not isnan(value) and all(value >= other for other in readable))
    ]
    found = Outcome.of(values, right)
    assert found.credit == pytest.approx(float(Fraction(sum(winners), len(winners))))
    assert found.strict == float(bool(readable) and winners == [True])
    assert found.strict <= found.credit


def test_a_judge_that_always_says_the_same_is_never_above_chance() -> None:
    """Over all places of the right answer, as when candidates are shuffled."""
    always_five, always_first, garbage = [5.0] * 4, [1.0, 0.0, 0.0, 0.0], [nan] * 4
    at_random = [*product([0.0, 1.0, nan], repeat=4)]
    places = [[place == right for place in range(4)] for right in range(4)]

    def mean(values: list[float], field: str) -> float:
        return float(np.mean([getattr(Outcome.of(values, right), field) for right in places]))

    assert mean(always_five, "strict") == 0
    assert mean(garbage, "strict") == 0
    assert mean(always_first, "strict") == pytest.approx(1 / 4)
    for values in (always_five, always_first, garbage, *map(list, at_random)):
        assert mean(values, "strict") <= 1 / 4
        assert mean(values, "credit") == pytest.approx(1 / 4)


def test_several_right_answers() -> None:
    assert Outcome.of([1, 1, 0], [True, True, False]).credit == 1
    assert Outcome.of([1, 1, 0], [True, True, False]).strict == 0
    assert Outcome.of([nan] * 3, [True, True, False]).credit == pytest.approx(2 / 3)


def test_outcomes_are_means_over_seeds() -> None:
    gold = [1.0, 0.0]
    seeds = [
        [made("a", {"gold": gold, "r": [1, 0]}), made("b", {"gold": gold, "r": [nan, nan]})],
        [made("a", {"gold": gold, "r": [0, 1]}), made("b", {"gold": gold, "r": [nan, 1]})],
    ]
    values = dict(zip(FIELDS, outcomes(seeds, "r").T.tolist(), strict=True))
    assert values["strict"] == [0.5, 0.0]
    assert values["credit"] == [0.5, 0.25]
    assert values["failure_rate"] == [0.0, 0.75]
    assert values["all_failed"] == [0.0, 0.5]
    assert values["chance"] == [0.5, 0.5]


def test_costs_are_for_an_item_and_a_seed_and_counts_in_all() -> None:
    pools = [
        [made("a", {"gold": [1, 0], "r": [1, 0]}, cost=10, seconds={"r": 2.0}),
         made("b", {"gold": [1, 0], "r": [1, 0]}, cost=20, seconds={"r": 4.0})],
    ]  # fmt: skip
    for pool in pools[0]:
        pool.candidates[0].scores["r"].counts = {"first": 2, "second": 1}
    cost = Cost.of(pools, "r")
    assert (cost.tokens, cost.seconds, cost.counts) == (30, 3.0, {"first": 4, "second": 2})


def test_a_missing_score_is_named() -> None:
    with pytest.raises(ConfigError, match="the item 'a' has no scores 'r'"):
        outcomes([[made("a", {"gold": [1, 0]})]], "r")
