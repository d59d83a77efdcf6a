"""Findings say what the curve says, with its numbers; the JSON is strict, the table complete."""

import csv
import json
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import made

from bestofn.analysis import results
from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.findings import Finding, as_result, at, rate, shown, signed
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.results import covered, findings, of_lengths
from bestofn.errors import ConfigError
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


def right(i: int, gold: Any) -> Any:
    return gold


def wrong(i: int, gold: Any) -> Any:
    return -gold


def fooled(i: int, gold: Any) -> Any:
    """The highest score is wrong, the others rank by gold: best of 2 is good, best of 8 is not."""
    scores = gold.copy()
    scores[np.flatnonzero(gold == 0)[0]] = 9
    return scores + 1e-3 * np.arange(8)


# --- the pools ------------------------------------------------------------------------------------


def test_the_setting_comes_first_and_what_intervals_cover_last() -> None:
    pools, small = pools_of(flip=noise), pools_of(flip=noise)
    curve = curve_of(pools, level=0.9)
    assert said(curve)[:2] == [
        "20 prompts with 8 candidates each.",
        f"gold of a random candidate: {shown(at(curve.interval(curve.chance)))}.",
    ]
    assert said(curve)[-1] == str(covered(curve))
    assert "Intervals (90%) resample prompts, each with its pool, 200 times" in said(curve)[-1]
    del small[0].candidates[3:]
    both = curve_of([pools, small])
    assert said(both)[0] == "20 prompts with 3 to 8 candidates each, drawn 2 times."
    assert "each with all its 2 pools" in str(covered(both))
    for iid in (True, False):
        text = " ".join(said(curve_of(pools, iid=iid)))
        assert ("what drawing more would give" in text) is not iid


def test_a_few_prompts_show_nothing() -> None:
    for prompts, concludes in ((9, False), (10, True)):
        texts = said(curve_of(pools_of(prompts, flip=noise)))
        assert any("minus" in text for text in texts) is concludes
        assert any("prompts are the least from which" in text for text in texts) is not concludes


def test_what_is_left_out() -> None:
    curve = curve_of(pools_of(flip=noise))
    for count, text in ((0, None), (1, "1 prompt is left out"), (2, "2 prompts are left out")):
        curve.left_out = [("x", "why"), ("y", "z")][:count]
        wanted = [f"{text}; the first, x: why."] if text else []
        assert [found for found in said(curve) if "left out" in found] == wanted


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
    gain = signed(at(curve.curves[0].gain))
    assert sentence(curve, "flip minus random") == f"flip minus random at N=8: {gain}, {ends}"
    assert not any("over-optimisation" in text for text in said(curve) if "flip" in text)


def test_over_optimisation_is_named_with_its_peak() -> None:
    curve = curve_of(pools_of(flip=fooled))
    mean = curve.curves[0].gold.mean
    text = sentence(curve, "flip at N=8 minus its peak at N=2")
    assert f": {mean[-1] - mean.max():+.3f} [" in text
    assert text.endswith("over-optimisation.")


def test_ties_failures_and_a_single_size() -> None:
    half = [nan, nan, 1, 1, 1, 1, 1, 1]
    text = sentence(curve_of(pools_of(flip=lambda i, gold: half)), "flip at N=8")
    assert "several candidates share the best score in 100% of draws" in text
    assert text.endswith("25.0% of its scores failed.")
    curve = curve_of(pools_of(flip=noise), ns=[1], proxies=["flip"])
    assert sentence(curve, "flip") == f"flip at N=1: {shown(at(curve.curves[0].gold))}."


def test_pools_of_several_seeds_say_what_new_ones_would_give() -> None:
    seeds = [pools_of(flip=noise), pools_of(flip=right)]
    curve = curve_of(seeds, proxies=["flip"])
    new = curve.curves[0].noise
    assert new is not None
    text = sentence(curve, "flip at N=8 with new pools for the same prompts")
    assert text.endswith(f"[{new.low[-1]:.3f}, {new.high[-1]:.3f}].")
    assert not any("new pools" in found for found in said(curve_of(seeds[0])))
    rows = results.table(results.as_dict(curve))
    assert [row["noise_high"] for row in rows] == new.high.tolist()


def test_the_highest_is_compared_with_each_other_one() -> None:
    names = ["bad", "good", "same", "random", "oracle"]
    curve = curve_of(pools_of(bad=wrong, good=right, same=right), proxies=names)
    assert sentence(curve, "good minus bad") == (
        "good minus bad at N=8: +1.000 [+1.000, +1.000], better; higher on 100% of the prompts, "
        "lower on 0%."
    )
    text = sentence(curve, "good minus same")
    assert ", no measurable difference; higher on 0% of the prompts" in text
    assert not any(found.startswith(("bad minus s", "same minus b")) for found in said(curve))
    assert sentence(curve, "oracle") == (
        "oracle at N=8: 1.000 [1.000, 1.000], good, the highest here, takes 100% of its gain over "
        "random."
    )


# --- lengths --------------------------------------------------------------------------------------


def by_length(flip: Any, cut: Any = None, prompts: int = 20) -> ScalingCurve:
    rng = np.random.default_rng(3)
    pools = []
    for i in range(prompts):
        tokens, gold = 10 * i + rng.permutation(8) + 1, np.roll(GOLD, i)
        scores = np.asarray(flip(gold, tokens, i), float).tolist()
        seen = scores if cut is None else np.asarray(cut(gold), float).tolist()
        rows = {"flip": scores, "gold": gold.tolist(), "flip@4": seen, "flip@2": [0.5] * 8}
        pools.append(made(f"p{i}", rows, tokens=tokens.tolist(), cost=1))
    return curve_of(pools, proxies=["flip", "longest"])


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
    assert "longest" not in text  # what costs nothing has no question of length


def test_what_a_reward_knows_besides_length_needs_four_candidates() -> None:
    def claims(pools: list[Pool]) -> list[str]:
        curve = curve_of(pools, proxies=["flip"])
        found = of_lengths(curve, LengthAnalysis(curve))
        return [str(finding) for finding in found if "held fixed" in finding.claim]

    def pools(count: int) -> list[Pool]:
        gold, tokens = [0.0, 1.0, 2.0, 3.0][:count], [2, 7, 1, 5][:count]
        scores = {"flip": gold, "gold": gold}
        return [made(f"p{i}", scores, tokens=tokens, cost=1) for i in range(3)]

    assert claims(pools(2)) == claims(pools(3)) == []
    (claim,) = claims(pools(4))
    assert ": 1.000 [" in claim
    assert "agrees with it beyond length" in claim


@pytest.mark.parametrize(
    ("flip", "cut", "words"),
    [
        (lambda g, t, i: g, None, "+0.000 [+0.000, +0.000], as good from 4 tokens on, within 0.02"),
        (lambda g, t, i: g, lambda g: -g, ", worse up to 4 tokens, where up to 0.02 less counts"),
        (lambda g, t, i: range(8), lambda g: -np.arange(8), ", not shown to be as good up to 4"),
    ],
)
def test_from_how_many_tokens_on(flip: Any, cut: Any, words: str) -> None:
    curve = by_length(flip, cut)
    text = str([*of_lengths(curve, LengthAnalysis(curve))][-1])
    assert text.startswith("flip on the first 4 tokens minus on whole responses at N=8: ")
    assert words in text
    assert text.endswith("; 98% of the candidates are longer.")


# --- how they are shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "plain", "with_sign"),
    [
        ((0.5, 0.25, 0.75), "0.500 [0.250, 0.750]", "+0.500 [+0.250, +0.750]"),
        ((-0.5, -1, -1e-9), "-0.500 [-1.000, 0.000]", "-0.500 [-1.000, +0.000]"),
        ((123.44, 1, 200), "123.4 [1.0, 200.0]", "+123.440 [+1.000, +200.000]"),
        ((nan, nan, nan), "unknown", "unknown"),
    ],
)
def test_how_numbers_are_shown(numbers: tuple[float, ...], plain: str, with_sign: str) -> None:
    interval = Interval(*map(np.asarray, numbers))
    assert (shown(interval), signed(interval)) == (plain, with_sign)


def test_a_finding_is_a_row_and_a_sentence() -> None:
    half = Interval(*map(np.asarray, (0.5, 0.25, inf)))
    assert (rate(half), shown(half, "gain")) == ("50 % [25, inf]", "+0.5 % [+0.2, +inf]")
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


# --- files ----------------------------------------------------------------------------------------

SCORES = {
    "flip": [0.0, 1.0, nan, 0.5],
    "broken": [nan] * 4,
    "gold": [0.0, 1.0, 0.5, 0.0],
    "flip@2": [0.5, 1.0, nan, 0.5],
    "broken@2": [nan] * 4,
}


@pytest.fixture(scope="module")
def curve() -> ScalingCurve:
    pools = [made(name, SCORES, tokens=[1, 2, 3, 4], cost=5) for name in "abc"]
    pools.append(made("d", SCORES | {"gold": [nan] * 4}, tokens=[1] * 4))
    return ScalingCurve(pools, resamples=20)


@pytest.fixture(scope="module")
def result(curve: ScalingCurve) -> dict[str, Any]:
    return results.as_dict(curve, LengthAnalysis(curve), title="T", pools=[Path("pool.jsonl")])


def test_the_json_is_strict_and_what_is_not_known_is_null(
    curve: ScalingCurve, result: dict[str, Any]
) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    broken = result["proxies"]["broken"]
    assert broken["proxy"]["mean"] == [None] * 3
    assert (broken["failed_scores"], broken["seconds"]) == (1, None)
    assert result["lengths"]["spearman"]["broken"]["mean"] is None
    assert result["proxies"]["majority"]["proxy"] is None
    assert result["left_out"] == [{"id": "d", "reason": "candidate 0 has no gold value: it failed"}]
    assert (result["title"], result["pools"], result["prompts"]) == ("T", ["pool.jsonl"], 3)
    assert (result["candidates"], result["ns"]) == ({"least": 4, "most": 4}, [1, 2, 4])
    assert result["summary"] == [*map(str, findings(curve, LengthAnalysis(curve)))]
    assert result["lengths"]["limits"] == [2]
    assert {*result["lengths"]["rewards"]} == {"flip", "broken"}
    assert results.as_dict(curve)["lengths"] is None


COLUMNS = """proxy n gold gold_low gold_high gain gain_low gain_high noise_low noise_high
proxy_value failure_rate tie_rate generated_tokens scored_tokens seconds seconds_p50
seconds_p95 money kl_bound monte_carlo_error""".split()


def test_what_is_written_are_the_curves_numbers(
    curve: ScalingCurve, result: dict[str, Any], tmp_path: Path
) -> None:
    results.write_results(tmp_path / "out", results.CURVE, result, results.table(result))
    assert results.read(tmp_path / "out") == result
    with (tmp_path / "out" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == COLUMNS
    wanted = [(proxy, place) for proxy in curve.curves for place in range(3)]
    for row, (proxy, place) in zip(rows, wanted, strict=True):
        assert (row["proxy"], row["n"]) == (proxy.name, str(curve.ns[place]))
        own = result["proxies"][proxy.name]
        assert own["after_peak"]["n"] == proxy.after_peak[0]
        assert float(row["gain_high"]) == own["gain"]["high"][place] == proxy.gain.high[place]
        assert float(row["failure_rate"]) == own["failures"][place] == proxy.failures[place]
        assert float(row["scored_tokens"]) == own["scored_tokens"][place]
        assert float(row["kl_bound"]) == result["kl_bound"][place]
        known = proxy.proxy is not None and np.isfinite(proxy.proxy.mean[place])
        assert bool(row["proxy_value"]) == known
        assert row["seconds"] == row["monte_carlo_error"] == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, ": [Errno 2] No such file"),
        (b"{", ": Expecting property name"),
        (b'{"title": "\xe9"}', ": 'utf-8' codec"),
        (b"[]", "; make it with `bestofn curve -o "),
        (b'{"summary": [], "proxies": {}, "pools": []}', "; make it with"),
    ],
)
def test_what_is_no_curve_is_one_sentence(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "curve.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        results.read(tmp_path)
    assert str(caught.value).startswith(f"{path} is not a curve of this version{why}")
