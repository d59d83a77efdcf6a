"""The rule of Ties, on values computed by hand."""

from math import nan, tanh

import pytest
from making import made

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.ties import ties_score
from bestofn.types import Pool, Prompt


def item(id: str, right: list[float], wrong: list[float]) -> Pool:
    gold = [1.0] * len(right) + [0.0] * len(wrong)
    pool = made(id, {"gold": gold, "r": [*right, *wrong]})
    columns = {"subset": "Ties", "item": id}
    return Pool(Prompt(pool.prompt.messages, f"Ties/{id}", columns), pool.candidates)


def score(*pools: Pool) -> float:
    return ties_score(pools, "r", resamples=100)[0]


def test_a_perfect_pair() -> None:
    # Right ones differ by 1, and stand 3 (ref) and 4 (tied) above the wrong ones.
    pair = [item("ref:1", [3], [0, -5]), item("tied:1", [5, 6], [1, 0])]
    assert score(*pair) == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01 * tanh(3 / 1 - 1))


def test_right_ones_that_differ_by_more_than_they_stand_above() -> None:
    # Within 4; above 1 (tied) and 3 (ref): accurate, but neither margin is larger than 4.
    pair = [item("ref:1", [3], [0]), item("tied:1", [6, 2], [1])]
    assert score(*pair) == pytest.approx(0.3 + 0.3 + 0.01 * tanh(1 / 4 - 1))


def test_the_smaller_margin_of_the_two_counts_in_the_hard_term() -> None:
    # Within 1; above 5 (tied) and 0.5 (ref): only the tied item's own margin is larger.
    pair = [item("ref:1", [0.5], [0]), item("tied:1", [7, 6], [1])]
    assert score(*pair) == pytest.approx(0.3 + 0.3 + 0.2 + 0.01 * tanh(0.5 / 1 - 1))


def test_all_equal_is_wrong_and_its_margin_not_defined() -> None:
    assert score(item("ref:1", [5], [5]), item("tied:1", [5, 5], [5])) == 0


def test_right_ones_that_are_equal_have_the_largest_margin() -> None:
    pair = [item("ref:1", [1], [0]), item("tied:1", [2, 2], [0])]
    assert score(*pair) == pytest.approx(1 + 0.01)


def test_a_wrong_one_on_top() -> None:
    # Above is -1 in both; within is 2.
    pair = [item("ref:1", [0], [1]), item("tied:1", [2, 0], [1])]
    assert score(*pair) == pytest.approx(0.01 * tanh(-1 / 2 - 1))


@pytest.mark.parametrize("failed", ["right", "wrong"])
def test_a_failed_score_makes_the_item_not_accurate(failed: str) -> None:
    right, wrong = ([5, nan], [0.0]) if failed == "right" else ([5.0, 6.0], [nan, 0])
    pair = [item("ref:1", [3], [0]), item("tied:1", right, wrong)]
    assert score(*pair) == pytest.approx(0.3)


def test_accuracies_are_over_all_items_of_a_kind_margins_over_pairs() -> None:
    found = score(
        item("ref:1", [3], [0]), item("tied:1", [5, 6], [1]),
        item("ref:2", [0], [3]), item("ref:3", [3], [0]),
        item("tied:9", [1, 1], [2]),
    )  # fmt: skip
    assert found == pytest.approx(0.3 / 2 + 0.3 * 2 / 3 + 0.2 + 0.2 + 0.01 * tanh(2))


def test_the_order_of_items_does_not_count() -> None:
    pools = [item("tied:2", [1, 1], [2]), item("ref:1", [3], [0]), item("tied:1", [5, 6], [1])]
    assert score(*pools) == pytest.approx(score(*pools[::-1]))


def test_resamples_of_one_pair_are_all_alike_and_of_several_scatter() -> None:
    pair = [item("ref:1", [3], [0]), item("tied:1", [5, 6], [1])]
    value, draws = ties_score(pair, "r", resamples=50)
    assert draws == pytest.approx([value] * 50)
    bad = [item(f"{kind}:{k}", [0], [1]) for kind in ("ref", "tied") for k in range(2, 6)]
    value, draws = ties_score([*pair, *bad], "r", resamples=4000)
    assert draws.std() > 0
    assert draws.mean() == pytest.approx(value, abs=0.02)


@pytest.mark.parametrize("id", ["7", "both:1", "tied"])
def test_an_id_of_another_form(id: str) -> None:
    with pytest.raises(ConfigError, match="'ref:K' and 'tied:K'"):
        score(item(id, [1], [0]))
