"""Sentences say what the curve says, with its numbers."""

from typing import Any

import numpy as np
import pytest
from making import made

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import intervals_hold, length_answers, shown, signed, summary
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.results import table
from bestofn.estimators import Interval
from bestofn.types import Pool

GOLD = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def pools_of(prompts: int = 20, **proxies: Any) -> list[Pool]:
    """Each proxy is a function of the prompt's number and the gold values."""
    pools = []
    for i in range(prompts):
        gold = np.roll(GOLD, i)
        scores = {name: np.asarray(made_of(i, gold), float) for name, made_of in proxies.items()}
        rows = {name: values.tolist() for name, values in scores.items()}
        pools.append(made(f"p{i}", rows | {"gold": gold.tolist()}, tokens=[5] * 8, cost=3))
    return pools


def curve_of(pools: Any, **options: Any) -> ScalingCurve:
    return ScalingCurve(pools, **{"resamples": 200} | options)


def sentence(curve: ScalingCurve, start: str) -> str:
    (found,) = [text for text in summary(curve) if text.startswith(start)]
    return found


def noise(i: int, gold: Any) -> Any:
    return np.random.default_rng(i).random(8)


def test_pools_of_several_seeds_say_what_new_ones_would_give() -> None:
    curve = curve_of([pools_of(flip=noise), pools_of(flip=lambda i, gold: gold)], proxies=["flip"])
    new = curve.curves[0].noise
    assert new is not None
    told = f"new pools for the same prompts would give {new.low[-1]:.3f} to {new.high[-1]:.3f}"
    assert told in sentence(curve, "flip:")
    assert "new pools" not in sentence(curve_of(pools_of(flip=noise), proxies=["flip"]), "flip:")
    rows = table(curve)
    assert [row["noise_high"] for row in rows] == new.high.tolist()


# --- the pools ------------------------------------------------------------------------------------


def test_pools_of_several_sizes_say_where_the_curves_end() -> None:
    pools = pools_of(flip=noise)
    del pools[0].candidates[3:]
    text = summary(curve_of(pools))[0]
    assert text.startswith("20 prompts with 3 to 8 candidates each.")
    assert "Curves end at the smallest pool's N=3; a larger N (--ns) leaves smaller" in text
    assert "Curves end" not in summary(curve_of(pools, ns=[1, 8]))[0]
    assert "Curves end" not in summary(curve_of(pools_of(flip=noise)))[0]


def test_candidates_of_several_models_say_nothing_of_drawing_more() -> None:
    pools = pools_of(flip=noise)
    assert "nothing of drawing more" in summary(curve_of(pools, iid=False))[0]
    assert "nothing of drawing more" not in summary(curve_of(pools))[0]


# --- one proxy ------------------------------------------------------------------------------------


def test_a_curve_that_rises() -> None:
    curve = curve_of(pools_of(flip=lambda i, gold: gold + 0.1 * np.arange(8)))
    (flip,) = [c for c in curve.curves if c.name == "flip"]
    text = sentence(curve, "flip: ")
    assert text.startswith("flip: 1.000 [1.000, 1.000] at N=8; its curve rises, by +0.500 [")
    assert f"{flip.gain.low[-1]:+.3f}, {flip.gain.high[-1]:+.3f}]" in text


def test_a_curve_that_falls() -> None:
    curve = curve_of(pools_of(flip=lambda i, gold: -gold + 0.1 * np.arange(8)))
    assert "its curve falls: choosing by it is worse than at random, by -0.500 [" in sentence(
        curve, "flip: "
    )


def test_a_curve_that_does_not_rise_measurably() -> None:
    text = sentence(curve_of(pools_of(flip=noise)), "flip: ")
    assert "its curve does not rise measurably (" in text
    assert "over one random candidate)" in text


def test_a_curve_that_rises_and_falls() -> None:
    # The highest score is wrong, the others rank by gold: best of 2 is good, best of 8 is not.
    def fooled(i: int, gold: Any) -> Any:
        scores = gold.copy()
        scores[np.flatnonzero(gold == 0)[0]] = 9
        return scores + 1e-3 * np.arange(8)

    curve = curve_of(pools_of(flip=fooled))
    (flip,) = [c for c in curve.curves if c.name == "flip"]
    peak = curve.ns[int(np.argmax(flip.gold.mean))]
    assert peak == 2
    change = flip.gold.mean[-1] - flip.gold.mean.max()
    text = sentence(curve, "flip: ")
    assert f"it is highest at N={peak} and falls after that, by {change:+.3f} [" in text
    assert text.endswith(": over-optimisation.")


def test_no_over_optimisation_without_measure() -> None:
    assert "over-optimisation" not in sentence(curve_of(pools_of(flip=noise)), "flip: ")


def test_a_single_size_says_nothing_of_a_rise() -> None:
    curve = curve_of(pools_of(flip=noise), ns=[1])
    assert sentence(curve, "flip: ") == f"flip: {shown(at(curve, 'flip'))} at N=1."


def at(curve: ScalingCurve, name: str, place: int = -1) -> Interval:
    (gold,) = [c.gold for c in curve.curves if c.name == name]
    return Interval(gold.mean[place], gold.low[place], gold.high[place])


def test_ties_and_failures_are_told() -> None:
    def half(i: int, gold: Any) -> Any:
        return [np.nan, np.nan, 1, 1, 1, 1, 1, 1]

    text = sentence(curve_of(pools_of(flip=half)), "flip: ")
    assert "several candidates share its best score in 100% of the draws" in text
    assert text.endswith("25.0% of its scores failed.")


# --- all of them ----------------------------------------------------------------------------------


def test_the_setting_comes_first() -> None:
    curve = curve_of(pools_of(flip=noise))
    chance = curve.interval(curve.chance)
    wanted = Interval(chance.mean[-1], chance.low[-1], chance.high[-1])
    assert summary(curve)[0] == (
        f"20 prompts with 8 candidates each. A random candidate has gold {shown(wanted)}."
    )


def test_sizes_and_seeds_in_the_setting() -> None:
    pools = pools_of(flip=noise)
    small = pools_of(flip=noise)
    small[0].candidates = small[0].candidates[:6]
    text = summary(curve_of([pools, small]))[0]
    assert text.startswith("20 prompts with 6 to 8 candidates each, drawn 2 times. ")


def test_a_few_prompts_show_nothing() -> None:
    for prompts, told in ((9, False), (10, True)):
        curve = curve_of(pools_of(prompts, flip=noise))
        assert any("rise" in text for text in summary(curve)) is told
        assert (
            any("too few" in text or "least from which" in text for text in summary(curve))
            is not told
        )


def test_the_better_of_two() -> None:
    curve = curve_of(pools_of(bad=lambda i, gold: -gold, good=lambda i, gold: gold))
    text = sentence(curve, "good is better than bad at N=8: ")
    assert text.endswith("+1.000 [+1.000, +1.000], higher on 100% of the prompts and lower on 0%.")


def test_no_measurable_difference() -> None:
    curve = curve_of(pools_of(one=noise, two=noise), proxies=["one", "two"])
    assert "Between one and two there is no measurable difference at N=8." in summary(curve)


def test_the_oracle_shows_the_headroom() -> None:
    curve = curve_of(pools_of(flip=lambda i, gold: gold), proxies=["flip", "oracle"])
    assert summary(curve)[2] == (
        "An oracle would reach 1.000 [1.000, 1.000] at N=8; flip, the highest here, takes 100% of "
        "that gain."
    )
    curve = curve_of(pools_of(flip=lambda i, gold: gold), proxies=["flip"])
    assert not [text for text in summary(curve) if "oracle" in text]


@pytest.mark.parametrize(
    ("left_out", "text"),
    [
        ([("x", "why")], "1 prompt is left out; the first, x: why."),
        ([("x", "why"), ("y", "z")], "2 prompts are left out; the first, x: why."),
    ],
)
def test_what_is_left_out(left_out: list[tuple[str, str]], text: str) -> None:
    curve = curve_of(pools_of(flip=noise))
    assert not [told for told in summary(curve) if "left out" in told]
    curve.left_out = left_out
    assert text in summary(curve)


def test_what_the_intervals_hold_comes_last() -> None:
    curve = curve_of(pools_of(flip=noise), level=0.9)
    assert summary(curve)[-1] == intervals_hold(curve)
    assert "Intervals (90%) resample prompts, each with its pool, 200 times" in summary(curve)[-1]
    pools = pools_of(flip=noise)
    assert "each with all its 2 pools" in intervals_hold(curve_of([pools, pools]))


# --- lengths --------------------------------------------------------------------------------------


def by_length(flip: Any, prompts: int = 20) -> ScalingCurve:
    rng = np.random.default_rng(3)
    pools = []
    for i in range(prompts):
        tokens = 10 * i + rng.permutation(8) + 1
        gold = np.roll(GOLD, i)
        scores = np.asarray(flip(gold, tokens, i), float).tolist()
        rows = {"flip": scores, "gold": gold.tolist(), "flip@4": scores, "flip@2": [0.5] * 8}
        pools.append(made(f"p{i}", rows, tokens=tokens.tolist(), cost=1))
    return curve_of(pools, proxies=["flip", "random"])


@pytest.mark.parametrize(
    ("flip", "words"),
    [
        (lambda g, t, i: t, ["flip likes longer", "is not measurably more than a choice by"]),
        (lambda g, t, i: -t, ["flip likes shorter", "is not measurably more than a choice by"]),
        (lambda g, t, i: g, ["no measurable taste", "knows more than length"]),
        (lambda g, t, i: -g, ["is worse than choosing by length alone"]),
        (lambda g, t, i: g if i >= 10 else -g, ["orders candidates better on the half", "+1.0"]),
        (lambda g, t, i: g if i < 10 else -g, ["orders candidates worse on the half", "-1.0"]),
    ],
)
def test_better_on_longer_outputs_or_does_it_only_like_them(flip: Any, words: list[str]) -> None:
    curve = by_length(flip)
    lengths = LengthAnalysis(curve)
    text = length_answers(curve, lengths)[0]
    assert [word for word in words if word not in text] == []
    assert shown(lengths.spearman["flip"]) in text
    assert f"selects {lengths.selected_length['flip'].mean[-1]:.1f} tokens" in text
    assert f"a candidate has {lengths.pool_length:.1f} in the mean" in text


def test_from_how_many_tokens_on() -> None:
    curve = by_length(lambda g, t, i: g)
    (_, text) = length_answers(curve, LengthAnalysis(curve))
    assert text == (
        "From 4 tokens on, flip chooses as well as from the whole response at N=8 (within 0.02): "
        "+0.000 [+0.000, +0.000]. 98% are longer than that."
    )


@pytest.mark.parametrize(
    ("flip", "cut", "words"),
    [
        (1, -1, "flip chooses worse from the first 4 tokens than from the whole response"),
        (0, 0, "flip is not shown to choose as well from the first 4 tokens as from the whole"),
    ],
)
def test_no_limit_is_enough(flip: int, cut: int, words: str) -> None:
    """A score is gold, minus gold, or the place: in opposite directions for cuts and wholes."""
    pools = []
    for i in range(8):
        gold = np.roll(GOLD, i)
        whole = flip * gold if flip else np.arange(8.0)
        seen = cut * gold if cut else -np.arange(8.0)
        rows = {"flip": whole.tolist(), "flip@4": seen.tolist(), "gold": gold.tolist()}
        pools.append(made(f"p{i}", rows, cost=1))
    curve = curve_of(pools, proxies=["flip"])
    text = length_answers(curve, LengthAnalysis(curve))[-1]
    assert words in text
    assert text.endswith("where up to 0.02 less counts as the same.")


def test_what_costs_nothing_has_no_question_of_length() -> None:
    curve = curve_of(pools_of(flip=noise), proxies=["longest", "random"])
    assert length_answers(curve, LengthAnalysis(curve)) == []


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "plain", "with_sign"),
    [
        ((0.5, 0.25, 0.75), "0.500 [0.250, 0.750]", "+0.500 [+0.250, +0.750]"),
        ((-0.5, -1, 0), "-0.500 [-1.000, 0.000]", "-0.500 [-1.000, +0.000]"),
        ((123.44, 1, 200), "123.4 [1.0, 200.0]", "+123.440 [+1.000, +200.000]"),
        ((np.nan, np.nan, np.nan), "unknown", "unknown"),
    ],
)
def test_how_numbers_are_shown(numbers: tuple[float, ...], plain: str, with_sign: str) -> None:
    interval = Interval(*(np.asarray(number) for number in numbers))
    assert (shown(interval), signed(interval)) == (plain, with_sign)
