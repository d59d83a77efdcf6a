"""What scores make of items, and accuracies against resampling by hand."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import isnan, nan, tanh

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import made

from bestofn.errors import ConfigError
from bestofn.evals.rewardbench.accuracy import (
    FIELDS,
    Evaluation,
    Line,
    Outcome,
    outcome,
    outcomes,
    ties_score,
)
from bestofn.types import Candidate, Pool, Prompt

LINES = [Line("a", "a", "flip", None), Line("b", "b", "pointwise", None)]
RIGHT = [True, False, False, False]
VALUES = st.sampled_from([0.0, 0.5, 1.0, nan])


def item(subset: str, id: str, scores: Mapping[str, Sequence[float]], right: int = 0) -> Pool:
    gold = [float(place == right) for place in range(4)]
    pool = made(id, {"gold": gold, **scores})
    columns = {"subset": subset, "item": id}
    return Pool(Prompt(pool.prompt.messages, f"{subset}/{id}", columns), pool.candidates)


def drawn(count: int = 60, names: Sequence[str] = ("a", "b"), seed: int = 0) -> list[Pool]:
    """Items of two subsets, one three times as large, with scores of few values, some failed."""
    rng = np.random.default_rng(seed)
    values = np.array([0.0, 1.0, 2.0, nan])
    return [
        item(
            "Math" if number % 4 == 0 else "Focus",
            str(number),
            {name: rng.choice(values, 4).tolist() for name in names},
            int(rng.integers(4)),
        )
        for number in range(count)
    ]


def strict_by_hand(pool: Pool, name: str) -> float:
    values = [candidate.scores[name].value for candidate in pool.candidates]
    best = [place for place, value in enumerate(values) if value == np.nanmax([*values, -1])]
    return float(len(best) == 1 and pool.candidates[best[0]].scores["gold"].value == 1)


# --- items


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
    found = Outcome(strict, credit, tie, failures, float(failures == 1), 1 / 4)
    assert outcome(values, RIGHT) == found


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
    found = outcome(values, right)
    assert found.credit == pytest.approx(float(Fraction(sum(winners), len(winners))))
    assert found.strict == float(bool(readable) and winners == [True])
    assert found.strict <= found.credit


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
    pools = [item("Math", str(k), {"a": [1, 0, 0, 0]}) for k in range(2)]
    for k, pool in enumerate(pools):
        pool.seconds["a"] = 2.0 + 2 * k
        pool.candidates[0].scores["a"].counts = {"place_1": 2, "place_2": 1}
        pool.candidates[1].scores["a"].usage.prompt_tokens = 20 + 20 * k
    (found,) = Evaluation([pools], LINES[:1]).accuracies
    assert (found.tokens, found.seconds) == (30, 3.0)
    assert found.counts == {"place_1": 4, "place_2": 2, "place_3": 0, "place_4": 0}


def test_a_missing_score_is_named() -> None:
    with pytest.raises(ConfigError, match="prompt 'a' has no score 'r'"):
        outcomes([[made("a", {"gold": [1, 0]})]], "r")


# --- subsets


def test_accuracies_and_intervals_by_hand() -> None:
    pools = drawn()
    evaluation = Evaluation([pools], LINES, resamples=3000)
    assert evaluation.subsets == {"Math": 15, "Focus": 45}
    rng = np.random.default_rng(1)
    for accuracy in evaluation.accuracies:
        name = accuracy.label
        by_subset = {
            subset: np.array([strict_by_hand(p, name) for p in pools if subset in p.prompt.id])
            for subset in ("Math", "Focus")
        }
        for subset, rights in by_subset.items():
            assert float(accuracy.subsets[subset]["strict"].mean) == pytest.approx(rights.mean())
        mean = accuracy.subsets["mean"]["strict"]
        assert float(mean.mean) == pytest.approx(
            np.mean([rights.mean() for rights in by_subset.values()])
        )
        draws = [
            np.mean([rng.choice(rights, len(rights)).mean() for rights in by_subset.values()])
            for _ in range(3000)
        ]
        low, high = np.quantile(draws, [0.025, 0.975])
        assert (float(mean.low), float(mean.high)) == pytest.approx((low, high), abs=0.02)


def test_rates() -> None:
    pools = [
        item("Math", "1", {"a": [3, 1, 1, 1]}),
        item("Math", "2", {"a": [1, 1, nan, 0]}),
        item("Focus", "1", {"a": [nan] * 4}),
    ]
    (accuracy,) = Evaluation([pools], LINES[:1]).accuracies
    wanted = {
        "Math": (0.5, 0.75, 0.5, 1 / 8, 0.0, 0.25),
        "Focus": (0.0, 0.25, 0.0, 1.0, 1.0, 0.25),
        "mean": (0.25, 0.5, 0.25, 9 / 16, 0.5, 0.25),
    }
    for name, rates in wanted.items():
        strict, credit, *others = (accuracy.subsets[name][f] for f in Outcome._fields)
        assert (float(strict.mean), float(credit.mean), *others) == pytest.approx(rates)


def test_differences_are_paired_and_go_both_ways() -> None:
    pools = drawn()
    for pool in pools:  # b is a where a is right, so that they hardly differ
        if strict_by_hand(pool, "a"):
            for candidate in pool.candidates:
                candidate.scores["b"] = candidate.scores["a"]
    evaluation = Evaluation([pools], LINES)
    found = {(d.a, d.b, d.convention): d for d in evaluation.differences}
    assert len(found) == 6
    there, back = found["a", "b", "strict"].minus["mean"], found["b", "a", "strict"].minus["mean"]
    assert float(there.low) == pytest.approx(-float(back.high))
    a, b = (accuracy.subsets["mean"]["strict"] for accuracy in evaluation.accuracies)
    assert float(there.mean) == pytest.approx(float(a.mean) - float(b.mean))
    # Never better on any item, so no resample says otherwise.
    assert float(there.high) <= 0
    gain = found["b", "a", "strict"].gain["mean"]
    assert gain is not None
    assert float(gain.mean) == pytest.approx(100 * (float(b.mean) / float(a.mean) - 1))
    assert float(gain.low) >= 0


def test_no_gain_over_a_reward_that_is_never_right() -> None:
    pools = [item("Math", str(k), {"a": [1, 0, 0, 0], "b": [nan] * 4}) for k in range(5)]
    evaluation = Evaluation([pools], LINES)
    strict, credit, _ = (d for d in evaluation.differences if (d.a, d.b) == ("a", "b"))
    assert strict.gain["mean"] is None
    assert credit.gain["mean"] is not None
    assert float(credit.gain["mean"].mean) == pytest.approx(300)


# --- several models -------------------------------------------------------------------------------

SEVERAL = [
    Line("a of X", "a", "flip", "X"),
    Line("long", "long", "longest", None),
    Line("a of Y", "a", "flip", "Y"),
]


def test_the_mean_over_models_resamples_items() -> None:
    pools = drawn(names=("a of X", "a of Y", "long"))
    for pool in pools:
        for name in ("a of X", "a of Y"):
            pool.candidates[0].scores[name].counts = {"first": 1, "second": 0}
    evaluation = Evaluation([pools], SEVERAL, over_models=True)
    assert evaluation.models == ["X", "Y"]
    assert [a.label for a in evaluation.accuracies] == ["a of X", "long", "a of Y"]
    assert [a.label for a in evaluation.overall] == ["a", "long"]
    x, long, y = (a.subsets["mean"]["strict"] for a in evaluation.accuracies)
    mean, same = (a.subsets["mean"]["strict"] for a in evaluation.overall)
    assert float(mean.mean) == pytest.approx((float(x.mean) + float(y.mean)) / 2)
    assert same == long
    assert evaluation.overall[0].counts == {"first": 120, "second": 0}
    assert evaluation.overall[0].tokens == 0
    assert {(d.a, d.b) for d in evaluation.differences} == {("a", "long"), ("long", "a")}
    # Scores of the two are independent, so the mean scatters less than either.
    assert float(mean.high - mean.low) < float(x.high - x.low)


# --- Ties -----------------------------------------------------------------------------------------

PAIR = [
    item("Ties", "ref:1", {"a": [3, 0, 0, 0]}),
    item("Ties", "tied:1", {"a": [3, 0, 0, 0]}),
]


def test_ties_stand_beside_the_mean() -> None:
    pools = [*drawn(names=("a",)), *PAIR]
    (accuracy,) = Evaluation([pools], LINES[:1]).accuracies
    (alone,) = Evaluation([drawn(names=("a",))], LINES[:1]).accuracies
    assert [*accuracy.subsets] == ["Math", "Focus", "mean"]
    assert accuracy.subsets["mean"] == alone.subsets["mean"]
    assert accuracy.ties is not None
    assert float(accuracy.ties.mean) == pytest.approx(1.01)
    assert alone.ties is None


def test_ties_alone() -> None:
    evaluation = Evaluation([PAIR, PAIR], LINES[:1])
    assert evaluation.accuracies[0].subsets == {}
    assert evaluation.accuracies[0].ties is not None
    assert (evaluation.subsets, evaluation.chance, evaluation.differences) == ({}, {}, [])


Side = tuple[list[float], list[float]]


def of_ties(id: str, right: list[float], wrong: list[float]) -> Pool:
    gold = [1.0] * len(right) + [0.0] * len(wrong)
    pool = made(id, {"gold": gold, "r": [*right, *wrong]})
    columns = {"subset": "Ties", "item": id}
    return Pool(Prompt(pool.prompt.messages, f"Ties/{id}", columns), pool.candidates)


def score(*pools: Pool) -> float:
    found = float(ties_score(pools, "r", resamples=100)[0])
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
    assert score(of_ties("ref:1", *ref), of_ties("tied:1", *tied)) == pytest.approx(expected)


def test_accuracies_are_over_all_items_of_a_kind_margins_over_pairs() -> None:
    found = score(
        of_ties("ref:1", [3], [0]), of_ties("tied:1", [5, 6], [1]),
        of_ties("ref:2", [0], [3]), of_ties("ref:3", [3], [0]),
        of_ties("tied:9", [1, 1], [2]),
    )  # fmt: skip
    assert found == pytest.approx(0.3 / 2 + 0.3 * 2 / 3 + 0.2 + 0.2 + 0.01 * tanh(2))


def test_resamples_of_one_pair_are_all_alike_and_of_several_scatter() -> None:
    pair = [of_ties("ref:1", *GOOD), of_ties("tied:1", [5, 6], [1])]
    value, *draws = ties_score(pair, "r", resamples=50)
    assert draws == pytest.approx([value] * 50)
    bad = [of_ties(f"{kind}:{k}", [0], [1]) for kind in ("ref", "tied") for k in range(2, 6)]
    value, *draws = ties_score([*pair, *bad], "r", resamples=4000)
    assert np.std(draws) > 0
    assert np.mean(draws) == pytest.approx(value, abs=0.02)


# --- length ---------------------------------------------------------------------------------------


def test_a_reward_that_only_knows_length_has_one_half() -> None:
    found = long_and_short(60, {"long": len, "short": lambda text: -len(text), "flat": lambda _: 0})
    evaluation = Evaluation([found], [Line(n, n, n, None) for n in ("long", "short", "flat")])
    long, short, flat = (a.subsets["mean"] for a in evaluation.accuracies)
    assert (long["right_longer"].mean, long["right_shorter"].mean) == (1, 0)
    assert (short["right_longer"].mean, short["right_shorter"].mean) == (0, 1)
    assert long["balanced"].mean == short["balanced"].mean == flat["balanced"].mean == 0.5
    assert long["balanced"].low == long["balanced"].high == 0.5
    assert long["strict"].mean != 0.5


def test_balanced_accuracy_is_that_of_pairs_by_hand() -> None:
    rng = np.random.default_rng(3)
    found = long_and_short(40, {"a": lambda _: float(rng.choice([0.0, 1.0, 2.0, nan]))})
    subsets = Evaluation([found], LINES[:1]).accuracies[0].subsets
    for name in ("Math", "Focus"):
        sides: dict[bool, list[float]] = {True: [], False: []}
        for pool in (pool for pool in found if pool.prompt.columns["subset"] == name):
            right, *wrong = sorted(pool.candidates, key=lambda c: -c.scores["gold"].value)
            for longer in (True, False):
                parts = [
                    Fraction(beats(right, other))
                    for other in wrong
                    if len(right.text) != len(other.text)
                    and (len(right.text) > len(other.text)) == longer
                ]
                sides[longer] += [float(sum(parts) / len(parts))] if parts else []
        expected = [np.mean(sides[longer]) for longer in (True, False)]
        assert subsets[name]["right_longer"].mean == pytest.approx(expected[0])
        assert subsets[name]["right_shorter"].mean == pytest.approx(expected[1])
        assert subsets[name]["balanced"].mean == pytest.approx(np.mean(expected))


def test_without_pairs_of_a_kind_nothing_is_balanced() -> None:
    found = long_and_short(12, {"a": len, "b": len}, right_is_longest=True)
    evaluation = Evaluation([found], LINES)
    assert isnan(evaluation.accuracies[0].subsets["mean"]["balanced"].mean)
    assert evaluation.accuracies[0].subsets["mean"]["right_longer"].mean == 1
    differences = {d.convention: d for d in evaluation.differences}
    assert isnan(differences["balanced"].minus["mean"].mean)
    assert differences["balanced"].gain["mean"] is None


def beats(right: Candidate, other: Candidate) -> Fraction:
    ours, theirs = (-np.inf if isnan(v := c.scores["a"].value) else v for c in (right, other))
    return Fraction(int(ours > theirs)) + Fraction(int(ours == theirs), 2)


def long_and_short(
    count: int, rewards: Mapping[str, Callable[[str], float]], right_is_longest: bool = False
) -> list[Pool]:
    """Items of two subsets whose responses have all lengths."""
    rng = np.random.default_rng(1)
    pools = []
    for number in range(count):
        lengths = rng.permutation([1, 2, 3, 4])
        texts = ["x" * int(length) for length in lengths]
        right = int(lengths.argmax()) if right_is_longest else int(rng.integers(4))
        scores = {name: [reward(text) for text in texts] for name, reward in rewards.items()}
        pool = item("Math" if number % 3 else "Focus", str(number), scores, right)
        for candidate, text in zip(pool.candidates, texts, strict=True):
            candidate.text = text
        pools.append(pool)
    return pools
