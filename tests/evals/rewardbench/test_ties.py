"""The rule of Ties, on values computed by hand."""

from math import nan, tanh

import pytest
from making import made

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.ties import ties_score
from bestofn.types import Pool, Prompt

Side = tuple[list[float], list[float]]


def item(id: str, right: list[float], wrong: list[float]) -> Pool:
    gold = [1.0] * len(right) + [0.0] * len(wrong)
    pool = made(id, {"gold": gold, "r": [*right, *wrong]})
    columns = {"subset": "Ties", "item": id}
    return Pool(Prompt(pool.prompt.messages, f"Ties/{id}", columns), pool.candidates)


def score(*pools: Pool) -> float:
    found = ties_score(pools, "r", resamples=100)[0]
    assert ties_score(pools[::-1], "r", resamples=1)[0] == pytest.approx(found)
    return found


GOOD: Side = ([3], [0])


@pytest.mark.parametrize(
    ("ref", "tied", "expected"),
    [
        # Right ones differ by 1, and are 3 (ref) and 4 (tied) above the wrong ones.
        (([3], [0, -5]), ([5, 6], [1, 0]), 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * tanh(3 / 1 - 1)),
        # Within 4; above 1 (tied) and 3 (ref): accurate, but neither margin is larger than 4.
        (GOOD, ([6, 2], [1]), 0.3 + 0.3 + 0.01 * tanh(1 / 4 - 1)),
        # Within 1; above 5 (tied) and 0.5 (ref): only the tied item's own margin is larger.
        (([0.5], [0]), ([7, 6], [1]), 0.3 + 0.3 + 0.2 + 0.01 * tanh(0.5 / 1 - 1)),
        # All equal: wrong, and the margin is not defined.
        (([5], [5]), ([5, 5], [5]), 0),
        # Right ones that are equal have the largest margin.
        (([1], [0]), ([2, 2], [0]), 1 + 0.01),
        # A wrong one on top: above is -1 in both; within is 2.
        (([0], [1]), ([2, 0], [1]), 0.01 * tanh(-1 / 2 - 1)),
        # A failed score, of a right or a wrong response, makes the item not accurate.
        (GOOD, ([5, nan], [0]), 0.3),
        (GOOD, ([5, 6], [nan, 0]), 0.3),
    ],
)
def test_a_pair(ref: Side, tied: Side, expected: float) -> None:
    assert score(item("ref:1", *ref), item("tied:1", *tied)) == pytest.approx(expected)


def test_accuracies_are_over_all_items_of_a_kind_margins_over_pairs() -> None:
    found = score(
        item("ref:1", [3], [0]), item("tied:1", [5, 6], [1]),
        item("ref:2", [0], [3]), item("ref:3", [3], [0]),
        item("tied:9", [1, 1], [2]),
    )  # fmt: skip
    assert found == pytest.approx(0.3 / 2 + 0.3 * 2 / 3 + 0.2 + 0.2 + 0.01 * tanh(2))


def test_resamples_of_one_pair_are_all_alike_and_of_several_scatter() -> None:
    pair = [item("ref:1", *GOOD), item("tied:1", [5, 6], [1])]
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
