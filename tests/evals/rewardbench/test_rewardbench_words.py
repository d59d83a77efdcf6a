"""What is said of an evaluation: numbers, and where a reward is no better than chance."""

from collections.abc import Callable, Sequence
from math import nan

import pytest
from making import made

from bestofn.evals.rewardbench.accuracy import Evaluation, Line
from bestofn.evals.rewardbench.findings import summary
from bestofn.evals.rewardbench.results import as_dict, shares
from bestofn.types import Pool, Prompt

Scores = Callable[[int, int], Sequence[float]]
"""From an item's number and the place of its right response."""


def right(number: int, place: int) -> Sequence[float]:
    return [float(k == place) for k in range(4)]


def equal(number: int, place: int) -> Sequence[float]:
    return [5.0] * 4


def failed(number: int, place: int) -> Sequence[float]:
    return [nan] * 4


def wrong(number: int, place: int) -> Sequence[float]:
    return [float(k == (place + 1) % 4) for k in range(4)]


def half(number: int, place: int) -> Sequence[float]:
    return (right if number % 2 else wrong)(number, place)


def evaluated(
    count: int = 40, seeds: int = 1, **by_label: tuple[str, dict[str, Scores]]
) -> Evaluation:
    """Two subsets; a reward is given by its kind and its scores on each."""
    pools = []
    for subset in ("Focus", "Math"):
        for number in range(count):
            place = number % 4
            scores = {name: of[subset](number, place) for name, (_, of) in by_label.items()}
            pool = made(str(number), {"gold": right(number, place), **scores})
            prompt = Prompt(pool.prompt.messages, f"{subset}/{number}", {"subset": subset})
            pools.append(Pool(prompt, pool.candidates))
    lines = [Line(name, name, kind) for name, (kind, _) in by_label.items()]
    return Evaluation([pools] * seeds, lines)


def both(scores: Scores) -> dict[str, Scores]:
    return {"Focus": scores, "Math": scores}


def test_a_perfect_reward_and_one_that_ties() -> None:
    said = summary(evaluated(flip=("flip", both(right)), judge=("pointwise", both(equal))))
    assert said[0] == (
        "80 items (Focus 40, Math 40). A random choice is right in 0.250 of them in the mean."
    )
    assert said[1].startswith("flip: 1.000 [1.000, 1.000] in the mean over subsets where ties are")
    assert "100.0% of its items are ties, 0.0% of its scores failed" in said[2]
    assert said[3] == (
        "judge is, with ties wrong, below chance on Focus, Math, the mean over subsets."
    )
    assert said[4] == (
        "judge is, with ties drawn, not measurably above chance on Focus, Math, the mean over "
        "subsets."
    )
    assert said[5] == (
        "flip against judge: +1.000 [+1.000, +1.000] where ties are wrong, +0.750 [+0.750, +0.750]"
        " (a gain of +300.0 % [+300.0, +300.0]) where a draw breaks them."
    )
    assert len(said) == 7


def test_nothing_is_compared_with_a_judge_that_said_nothing() -> None:
    said = summary(evaluated(flip=("flip", both(right)), judge=("pointwise", both(failed))))
    assert said[2].startswith("judge: all of its scores failed.")
    assert not any("against" in sentence for sentence in said)


def test_flip_at_or_below_chance_is_told() -> None:
    said = summary(evaluated(flip=("flip", {"Focus": right, "Math": wrong})))
    assert "flip is, in either convention, below chance on Math." in said


def test_ties_below_chance_where_they_are_wrong_and_at_chance_where_they_are_drawn() -> None:
    said = summary(evaluated(flip=("flip", {"Focus": right, "Math": equal})))
    assert "flip is, with ties wrong, below chance on Math." in said
    assert "flip is, with ties drawn, not measurably above chance on Math." in said


def test_a_judge_that_is_better_somewhere_is_told() -> None:
    evaluation = evaluated(
        flip=("flip-likelihood", {"Focus": right, "Math": half}),
        judge=("listwise", {"Focus": half, "Math": right}),
    )
    (sentence,) = (s for s in summary(evaluation) if s.startswith("flip against judge"))
    assert sentence.count(", lower on Math") == 2


def test_flip_is_not_compared_with_itself() -> None:
    evaluation = evaluated(flip=("flip", both(right)), like=("flip-likelihood", both(half)))
    assert not any("against" in sentence for sentence in summary(evaluation))


def test_a_subset_of_a_few_items_concludes_nothing() -> None:
    said = summary(evaluated(count=9, flip=("flip", both(right))))
    assert len(said) == 2
    assert "10 items a subset are the least" in said[1]
    assert len(summary(evaluated(count=10, flip=("flip", both(right))))) > 2


def test_seeds_are_told() -> None:
    said = summary(evaluated(seeds=3, flip=("flip", both(right))))
    assert "scored 3 times in other orders and with other seeds" in said[0]


def test_a_judges_taste_for_a_place_is_told() -> None:
    evaluation = evaluated(judge=("pairwise", both(right)))
    evaluation.overall[0].cost.counts.update({"first": 30, "second": 10})
    said = summary(evaluation)
    assert "judge picks the response that it is shown first in 75.0% of 40 comparisons." in said
    places = as_dict(evaluation)["overall"]["judge"]["places"]
    assert places == {"first": 0.75, "second": 0.25}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, {}),
        ({"calls": 8, "unreadable": 8, "pairs": 2}, {}),
        ({"calls": 8, "first": 1, "second": 3, "split": 1}, {"first": 0.25, "second": 0.75}),
        ({"first": 2}, {"first": 1.0, "second": 0.0}),
        ({"place_1": 3, "place_3": 1}, {"place_1": 0.75, "place_3": 0.25}),
    ],
)
def test_shares_of_places(counts: dict[str, int], expected: dict[str, float]) -> None:
    assert shares(counts) == expected
