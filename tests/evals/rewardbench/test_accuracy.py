"""Accuracies, differences and their intervals, against resampling by hand."""

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np
import pytest
from making import made

from bestofn.evals.rewardbench.accuracy import Estimate, Evaluation, Line
from bestofn.types import Pool, Prompt

LINES = [Line("a", "a", "flip"), Line("b", "b", "pointwise")]


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


def test_accuracies_and_intervals_by_hand() -> None:
    pools = drawn()
    evaluation = Evaluation([pools], LINES, resamples=3000)
    assert evaluation.subsets == {"Math": 15, "Focus": 45}
    rng = np.random.default_rng(1)
    for accuracy in evaluation.accuracies:
        name = accuracy.line.label
        by_subset = {
            subset: np.array([strict_by_hand(p, name) for p in pools if subset in p.prompt.id])
            for subset in ("Math", "Focus")
        }
        for subset, outcomes in by_subset.items():
            assert float(accuracy.by_subset[subset].strict.mean) == pytest.approx(outcomes.mean())
        mean = accuracy.by_subset["mean"].strict
        assert float(mean.mean) == pytest.approx(
            np.mean([outcomes.mean() for outcomes in by_subset.values()])
        )
        draws = [
            np.mean([rng.choice(outcomes, len(outcomes)).mean() for outcomes in by_subset.values()])
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
    math, focus, mean = (accuracy.by_subset[name] for name in ("Math", "Focus", "mean"))
    assert rates(math) == pytest.approx((0.5, 0.75, 0.5, 1 / 8, 0.0))
    assert rates(focus) == pytest.approx((0.0, 0.25, 0.0, 1.0, 1.0))
    assert rates(mean) == pytest.approx((0.25, 0.5, 0.25, 9 / 16, 0.5))
    assert mean.chance == 0.25


def rates(found: Estimate) -> tuple[float, ...]:
    strict, credit = float(found.strict.mean), float(found.credit.mean)
    return strict, credit, found.tie_rate, found.failure_rate, found.all_failed


def test_differences_are_paired_and_go_both_ways() -> None:
    pools = drawn()
    for pool in pools:  # b is a where a is right, so that they hardly differ
        if strict_by_hand(pool, "a"):
            for candidate in pool.candidates:
                candidate.scores["b"] = candidate.scores["a"]
    evaluation = Evaluation([pools], LINES)
    found = {(d.a, d.b, d.convention): d for d in evaluation.differences}
    assert len(found) == 4
    there, back = found["a", "b", "strict"].minus["mean"], found["b", "a", "strict"].minus["mean"]
    assert float(there.mean) == pytest.approx(-float(back.mean))
    assert (float(there.low), float(there.high)) == pytest.approx(
        (-float(back.high), -float(back.low))
    )
    a, b = (accuracy.by_subset["mean"].strict for accuracy in evaluation.accuracies)
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
    strict, credit = (d for d in evaluation.differences if (d.a, d.b) == ("a", "b"))
    assert strict.gain["mean"] is None
    assert credit.gain["mean"] is not None
    assert float(credit.gain["mean"].mean) == pytest.approx(300)


def test_seeds_are_averaged_item_by_item() -> None:
    seeds = [drawn(seed=0), drawn(seed=1)]
    both = Evaluation(seeds, LINES).accuracies[0].by_subset["mean"]
    each = [Evaluation([pools], LINES).accuracies[0].by_subset["mean"] for pools in seeds]
    assert float(both.strict.mean) == pytest.approx(np.mean([float(e.strict.mean) for e in each]))
    widths = [float(e.strict.high - e.strict.low) for e in each]
    assert float(both.strict.high - both.strict.low) < max(widths)


# --- several models -------------------------------------------------------------------------------

SEVERAL = [
    Line("a of X", "a", "flip", "X"),
    Line("long", "long", "longest"),
    Line("a of Y", "a", "flip", "Y"),
]


def test_the_mean_over_models_resamples_items() -> None:
    pools = drawn(names=("a of X", "a of Y", "long"))
    for pool in pools:
        for name in ("a of X", "a of Y"):
            pool.candidates[0].scores[name].counts = {"first": 1, "second": 0}
    evaluation = Evaluation([pools], SEVERAL, over_models=True)
    assert evaluation.models == ["X", "Y"]
    assert [a.line.label for a in evaluation.accuracies] == ["a of X", "long", "a of Y"]
    assert [a.line.label for a in evaluation.overall] == ["a", "long"]
    x, long, y = (a.by_subset["mean"].strict for a in evaluation.accuracies)
    mean, same = (a.by_subset["mean"].strict for a in evaluation.overall)
    assert float(mean.mean) == pytest.approx((float(x.mean) + float(y.mean)) / 2)
    assert same == long
    assert evaluation.overall[0].cost.counts == {"first": 120, "second": 0}
    assert evaluation.overall[0].cost.tokens == 0
    assert {(d.a, d.b) for d in evaluation.differences} == {("a", "long"), ("long", "a")}
    # Scores of the two are independent, so the mean scatters less than either.
    assert float(mean.high - mean.low) < float(x.high - x.low)


def test_one_model_is_its_own_mean() -> None:
    evaluation = Evaluation([drawn()], LINES)
    assert evaluation.models == []
    assert evaluation.overall == evaluation.accuracies


# --- Ties -----------------------------------------------------------------------------------------

PAIR = [
    item("Ties", "ref:1", {"a": [3, 0, 0, 0]}),
    item("Ties", "tied:1", {"a": [3, 0, 0, 0]}),
]


def test_ties_stand_beside_the_mean() -> None:
    pools = [*drawn(names=("a",)), *PAIR]
    (accuracy,) = Evaluation([pools], LINES[:1]).accuracies
    (alone,) = Evaluation([drawn(names=("a",))], LINES[:1]).accuracies
    assert [*accuracy.by_subset] == ["Math", "Focus", "mean"]
    assert accuracy.by_subset["mean"] == alone.by_subset["mean"]
    assert accuracy.ties is not None
    assert float(accuracy.ties.mean) == pytest.approx(1.01)
    assert alone.ties is None


def test_ties_alone() -> None:
    evaluation = Evaluation([PAIR, PAIR], LINES[:1])
    (accuracy,) = evaluation.accuracies
    assert accuracy.by_subset == evaluation.subsets == evaluation.chance == {}
    assert accuracy.ties is not None
    assert evaluation.ties_items == 2
    assert evaluation.differences == []
