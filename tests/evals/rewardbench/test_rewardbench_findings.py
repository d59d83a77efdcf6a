"""What is said of an evaluation: numbers, and where a reward is no better than chance."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import pytest
from making import made

from bestofn.evals.rewardbench.accuracy import Evaluation, Line
from bestofn.evals.rewardbench.results import as_dict, draw, findings, shares
from bestofn.types import Pool, Prompt

Scores = Callable[[int, int], Sequence[float]]
"""From an item's number and the place of its right response."""


def right(number: int, place: int) -> Sequence[float]:
    return [float(k == place) for k in range(4)]


def wrong(number: int, place: int) -> Sequence[float]:
    return right(number, (place + 1) % 4)


def half(number: int, place: int) -> Sequence[float]:
    return (right if number % 2 else wrong)(number, place)


def equal(number: int, place: int) -> Sequence[float]:
    return [5.0] * 4


def evaluated(
    count: int = 40, seeds: int = 1, **by_label: tuple[str, Scores, Scores]
) -> Evaluation:
    """Two subsets; a reward is given by its kind and its scores on each."""
    pools = []
    for place, subset in enumerate(("Focus", "Math"), 1):
        for number in range(count):
            scores = {name: of[place](number, number % 4) for name, of in by_label.items()}  # type: ignore[operator]
            pool = made(str(number), {"gold": right(number, number % 4), **scores})
            prompt = Prompt(pool.prompt.messages, f"{subset}/{number}", {"subset": subset})
            pools.append(Pool(prompt, pool.candidates))
    lines = [Line(name, name, kind, None) for name, (kind, *_) in by_label.items()]
    return Evaluation([pools] * seeds, lines)


def said(evaluation: Evaluation) -> list[str]:
    return [str(finding) for finding in findings(evaluation)]


def test_a_perfect_reward_and_one_that_ties() -> None:
    assert said(evaluated(flip=("flip", right, right), judge=("pointwise", equal, equal)))[:-1] == [
        "80 items (Focus 40, Math 40); a random choice is right in 0.250 of them on average.",
        "flip, mean over subsets, ties wrong: 1.000 [1.000, 1.000], above chance on every subset.",
        "flip, mean over subsets, ties broken by a draw: 1.000 [1.000, 1.000], above chance on "
        "every subset.",
        "flip: 0.0% of its items are ties, 0.0% of its scores failed, all of an item's in 0.0%.",
        "judge, mean over subsets, ties wrong: 0.000 [0.000, 0.000], below chance on Focus, Math, "
        "the mean.",
        "judge, mean over subsets, ties broken by a draw: 0.250 [0.250, 0.250], not measurably "
        "above chance on Focus, Math, the mean.",
        "judge: 100.0% of its items are ties, 0.0% of its scores failed, all of an item's in 0.0%.",
        "flip minus judge, mean over subsets, ties wrong: +1.000 [+1.000, +1.000], better.",
        "flip minus judge, mean over subsets, ties broken by a draw: +0.750 [+0.750, +0.750], "
        "better; a gain of +300.0 % [+300.0, +300.0].",
    ]


def test_nothing_is_compared_with_a_judge_whose_scores_all_failed() -> None:
    found = said(
        evaluated(
            flip=("flip", right, right),
            judge=("pointwise", lambda *_: [nan] * 4, lambda *_: [nan] * 4),
        )
    )
    assert "judge: all of its scores failed; it is compared with nothing." in found
    assert not any("minus" in sentence for sentence in found)


@pytest.mark.parametrize(("math", "strict", "credit"), [
    (wrong, "below chance on Math.", "below chance on Math."),
    (equal, "below chance on Math.", "not measurably above chance on Math."),
])  # fmt: skip
def test_where_flip_is_not_above_chance(math: Scores, strict: str, credit: str) -> None:
    found = said(evaluated(flip=("flip", right, math)))
    assert found[1].endswith(strict)
    assert found[2].endswith(credit)


def test_a_judge_that_is_better_somewhere_is_named_and_flip_not_compared_with_itself() -> None:
    evaluation = evaluated(
        flip=("flip-likelihood", right, half),
        judge=("listwise", half, right),
        like=("flip", right, right),
    )
    found = [sentence for sentence in said(evaluation) if "minus" in sentence]
    assert [sentence.split(",")[0] for sentence in found] == ["flip minus judge"] * 2 + [
        "like minus judge"
    ] * 2
    assert all(sentence.endswith("lower on Math.") for sentence in found[:2])


def test_a_subset_of_a_few_items_concludes_nothing() -> None:
    for count, concludes in ((9, False), (10, True)):
        found = said(evaluated(count, flip=("flip", right, right)))
        assert (len(found) > 2) is concludes
        assert ("10 items a subset are the least" in found[1]) is not concludes


def test_seeds_and_a_preference_for_a_place_are_named(tmp_path: Path) -> None:
    evaluation = evaluated(seeds=3, judge=("pairwise", right, right))
    evaluation.overall[0].counts.update({"first": 30, "second": 10})
    found = said(evaluation)
    assert "scored 3 times in other orders and with other seeds" in found[0]
    sentence = "judge picks first of what it is shown most often, in 75.0% of 40 picks, where 50.0%"
    assert any(text.startswith(sentence) for text in found)
    result = as_dict(evaluation)
    assert result["overall"]["judge"]["places"] == {"first": 0.75, "second": 0.25}
    assert [file.name for file in draw(result, tmp_path)] == ["rewardbench.svg", "rewardbench.png"]


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
