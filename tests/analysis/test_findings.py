"""Findings say what the curve says, with its numbers."""

from typing import Any

import numpy as np
import pytest
from making import made

from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import Finding, as_result, gain, rate, shown, signed
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.results import table
from bestofn.analysis.summary import covered, findings, of_lengths
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


def said(curve: ScalingCurve) -> list[str]:
    return [str(finding) for finding in findings(curve)]


def sentence(curve: ScalingCurve, start: str) -> str:
    (found,) = [text for text in said(curve) if text.startswith(start)]
    return found


def noise(i: int, gold: Any) -> Any:
    return np.random.default_rng(i).random(8)


# --- the pools ------------------------------------------------------------------------------------


def test_the_setting_comes_first_and_what_intervals_cover_last() -> None:
    curve = curve_of(pools_of(flip=noise), level=0.9)
    chance = curve.interval(curve.chance)
    wanted = Interval(chance.mean[-1], chance.low[-1], chance.high[-1])
    assert said(curve)[:2] == [
        "20 prompts with 8 candidates each.",
        f"gold of a random candidate: {shown(wanted)}.",
    ]
    last = said(curve)[-1]
    assert last == str(covered(curve))
    assert "Intervals (90%) resample prompts, each with its pool, 200 times" in last
    pools = pools_of(flip=noise)
    assert "each with all its 2 pools" in str(covered(curve_of([pools, pools])))


def test_pools_of_several_sizes_and_seeds() -> None:
    pools, small = pools_of(flip=noise), pools_of(flip=noise)
    del small[0].candidates[3:]
    curve = curve_of([pools, small])
    assert said(curve)[0] == "20 prompts with 3 to 8 candidates each, drawn 2 times."
    assert "Curves end at the smallest pool's N=3; a larger N (--ns)" in said(curve)[2]
    for other in (curve_of(small, ns=[1, 8]), curve_of(pools)):
        assert not any("Curves end" in text for text in said(other))


def test_candidates_of_several_models_say_nothing_of_drawing_more() -> None:
    for iid in (True, False):
        text = " ".join(said(curve_of(pools_of(flip=noise), iid=iid)))
        assert ("what drawing more would give" in text) is not iid


def test_a_few_prompts_show_nothing() -> None:
    for prompts, concludes in ((9, False), (10, True)):
        texts = said(curve_of(pools_of(prompts, flip=noise)))
        assert any("minus" in text for text in texts) is concludes
        assert any("prompts are the least from which" in text for text in texts) is not concludes


@pytest.mark.parametrize(
    ("left_out", "text"),
    [
        ([("x", "why")], "1 prompt is left out; the first, x: why."),
        ([("x", "why"), ("y", "z")], "2 prompts are left out; the first, x: why."),
    ],
)
def test_what_is_left_out(left_out: list[tuple[str, str]], text: str) -> None:
    curve = curve_of(pools_of(flip=noise))
    assert not [found for found in said(curve) if "left out" in found]
    curve.left_out = left_out
    assert text in said(curve)


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flip", "ends"),
    [
        (lambda i, gold: gold + 0.1 * np.arange(8), "better than random."),
        (lambda i, gold: -gold + 0.1 * np.arange(8), "worse than random."),
        (noise, "no measurable difference."),
    ],
)
def test_a_proxy_against_random(flip: Any, ends: str) -> None:
    curve = curve_of(pools_of(flip=flip))
    (found,) = [c for c in curve.curves if c.name == "flip"]
    gain = Interval(found.gain.mean[-1], found.gain.low[-1], found.gain.high[-1])
    assert (
        sentence(curve, "flip minus random") == f"flip minus random at N=8: {signed(gain)}, {ends}"
    )
    assert not any("over-optimisation" in text for text in said(curve) if "flip" in text)


def test_over_optimisation_is_named_with_its_peak() -> None:
    # The highest score is wrong, the others rank by gold: best of 2 is good, best of 8 is not.
    def fooled(i: int, gold: Any) -> Any:
        scores = gold.copy()
        scores[np.flatnonzero(gold == 0)[0]] = 9
        return scores + 1e-3 * np.arange(8)

    curve = curve_of(pools_of(flip=fooled))
    (flip,) = [c for c in curve.curves if c.name == "flip"]
    change = flip.gold.mean[-1] - flip.gold.mean.max()
    text = sentence(curve, "flip at N=8 minus its peak at N=2")
    assert f": {change:+.3f} [" in text
    assert text.endswith("over-optimisation.")


def test_a_single_size_is_compared_with_nothing_but_others() -> None:
    curve = curve_of(pools_of(flip=noise), ns=[1], proxies=["flip"])
    (flip,) = curve.curves
    value = Interval(flip.gold.mean[0], flip.gold.low[0], flip.gold.high[0])
    assert sentence(curve, "flip") == f"flip at N=1: {shown(value)}."


def test_ties_and_failures() -> None:
    half = [np.nan, np.nan, 1, 1, 1, 1, 1, 1]
    text = sentence(curve_of(pools_of(flip=lambda i, gold: half)), "flip at N=8")
    assert "several candidates share the best score in 100% of draws" in text
    assert text.endswith("25.0% of its scores failed.")


def test_pools_of_several_seeds_say_what_new_ones_would_give() -> None:
    seeds = [pools_of(flip=noise), pools_of(flip=lambda i, gold: gold)]
    curve = curve_of(seeds, proxies=["flip"])
    new = curve.curves[0].noise
    assert new is not None
    text = sentence(curve, "flip at N=8 with new pools for the same prompts")
    assert text.endswith(f"[{new.low[-1]:.3f}, {new.high[-1]:.3f}].")
    assert not any("new pools" in found for found in said(curve_of(seeds[0])))
    assert [row["noise_high"] for row in table(curve)] == new.high.tolist()


def test_the_highest_is_compared_with_each_other_one() -> None:
    curve = curve_of(
        pools_of(bad=lambda i, gold: -gold, good=lambda i, gold: gold, same=lambda i, gold: gold),
        proxies=["bad", "good", "same", "random"],
    )
    assert sentence(curve, "good minus bad") == (
        "good minus bad at N=8: +1.000 [+1.000, +1.000], better; higher on 100% of the prompts, "
        "lower on 0%."
    )
    text = sentence(curve, "good minus same")
    assert ", no measurable difference; higher on 0% of the prompts" in text
    assert not any(found.startswith(("bad minus s", "same minus b")) for found in said(curve))


def test_the_oracle_shows_the_headroom() -> None:
    curve = curve_of(pools_of(flip=lambda i, gold: gold), proxies=["flip", "oracle"])
    assert sentence(curve, "oracle") == (
        "oracle at N=8: 1.000 [1.000, 1.000], flip, the highest here, takes 100% of its gain over "
        "random."
    )
    curve = curve_of(pools_of(flip=lambda i, gold: gold), proxies=["flip"])
    assert not [text for text in said(curve) if "oracle" in text]


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
        (lambda g, t, i: t, ["prefers longer", "no measurable difference"]),
        (lambda g, t, i: -t, ["prefers shorter", "no measurable difference"]),
        (lambda g, t, i: g, ["no measurable preference", "better than length alone"]),
        (lambda g, t, i: -g, ["worse than length alone"]),
        (lambda g, t, i: g if i >= 10 else -g, ["better on longer responses", "+1.0"]),
        (lambda g, t, i: g if i < 10 else -g, ["worse on longer responses", "-1.0"]),
    ],
)
def test_better_on_longer_outputs_or_does_it_only_prefer_them(flip: Any, words: list[str]) -> None:
    curve = by_length(flip)
    lengths = LengthAnalysis(curve)
    text = " ".join(map(str, of_lengths(curve, lengths)))
    assert [word for word in words if word not in text] == []
    assert shown(lengths.spearman["flip"]) in text
    assert f"selects {lengths.selected_length['flip'].mean[-1]:.1f} tokens" in text
    assert f"a candidate has {lengths.pool_length:.1f} on average" in text


def test_from_how_many_tokens_on() -> None:
    curve = by_length(lambda g, t, i: g)
    assert str([*of_lengths(curve, LengthAnalysis(curve))][-1]) == (
        "flip on the first 4 tokens minus on whole responses at N=8: +0.000 [+0.000, +0.000], "
        "as good from 4 tokens on, within 0.02; 98% of the candidates are longer."
    )


@pytest.mark.parametrize(("flip", "cut", "words"), [(1, -1, "worse"), (0, 0, "not shown to be")])
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
    text = str([*of_lengths(curve, LengthAnalysis(curve))][-1])
    assert f", {words}" in text
    assert text.endswith("up to 4 tokens, where up to 0.02 less counts as the same.")


def test_what_costs_nothing_has_no_question_of_length() -> None:
    curve = curve_of(pools_of(flip=noise), proxies=["longest", "random"])
    assert [*of_lengths(curve, LengthAnalysis(curve))] == []


# --- how they are shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "plain", "with_sign"),
    [
        ((0.5, 0.25, 0.75), "0.500 [0.250, 0.750]", "+0.500 [+0.250, +0.750]"),
        ((-0.5, -1, -1e-9), "-0.500 [-1.000, 0.000]", "-0.500 [-1.000, +0.000]"),
        ((123.44, 1, 200), "123.4 [1.0, 200.0]", "+123.440 [+1.000, +200.000]"),
        ((np.nan, np.nan, np.nan), "unknown", "unknown"),
    ],
)
def test_how_numbers_are_shown(numbers: tuple[float, ...], plain: str, with_sign: str) -> None:
    interval = Interval(*(np.asarray(number) for number in numbers))
    assert (shown(interval), signed(interval)) == (plain, with_sign)


def test_a_finding_is_a_row_and_a_sentence() -> None:
    half = Interval(*map(np.asarray, (0.5, 0.25, np.inf)))
    assert (rate(half), gain(half)) == ("50 % [25, inf]", "+0.5 % [+0.2, +inf]")
    result = as_result([Finding("a minus b", half, "better", "difference"), Finding("20 prompts")])
    assert result["summary"] == ["a minus b: +0.500 [+0.250, +inf], better.", "20 prompts."]
    assert result["findings"] == [
        {
            "claim": "a minus b",
            "value": {"mean": 0.5, "low": 0.25, "high": None},
            "shown": "+0.500 [+0.250, +inf]",
            "verdict": "better",
        },
        {"claim": "20 prompts", "value": None, "shown": "", "verdict": ""},
    ]
