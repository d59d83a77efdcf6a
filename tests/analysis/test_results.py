"""What is written of a curve: strict JSON, a table, and errors that say what to do."""

import csv
import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import made

from bestofn.analysis import results
from bestofn.analysis.curves import ScalingCurve
from bestofn.analysis.lengths import LengthAnalysis
from bestofn.analysis.summary import findings
from bestofn.errors import BestOfNError, ConfigError

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


def test_the_json_is_strict_and_whole(result: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_what_is_not_known_is_null(result: dict[str, Any]) -> None:
    broken = result["proxies"]["broken"]
    assert broken["proxy"]["mean"] == [None] * 3
    assert broken["failed_scores"] == 1
    assert broken["seconds"] is None
    assert result["lengths"]["spearman"]["broken"]["mean"] is None
    assert result["proxies"]["majority"]["proxy"] is None


def test_numbers_are_those_of_the_curve(curve: ScalingCurve, result: dict[str, Any]) -> None:
    assert result["ns"] == [1, 2, 4]
    assert [*result["proxies"]] == [proxy.name for proxy in curve.curves]
    for proxy in curve.curves:
        found = result["proxies"][proxy.name]
        for which in ("gold", "gain"):
            for end in ("mean", "low", "high"):
                assert found[which][end] == getattr(getattr(proxy, which), end).tolist()
        peak, after = proxy.after_peak
        assert found["after_peak"]["n"] == peak
        assert found["after_peak"]["gold"]["mean"] == after.mean.tolist()


def test_what_was_left_out_and_how_it_was_made(curve: ScalingCurve, result: dict[str, Any]) -> None:
    assert result["left_out"] == [{"id": "d", "reason": "candidate 0 has no gold value: it failed"}]
    assert (result["title"], result["pools"], result["prompts"]) == ("T", ["pool.jsonl"], 3)
    assert result["candidates"] == {"least": 4, "most": 4}
    assert result["summary"] == [*map(str, findings(curve, LengthAnalysis(curve)))]
    assert result["iid"]


def test_lengths_are_there_if_they_were_looked_at(curve: ScalingCurve, result: Any) -> None:
    assert results.as_dict(curve)["lengths"] is None
    assert result["lengths"]["limits"] == [2]
    assert {*result["lengths"]["rewards"]} == {"flip", "broken"}
    assert result["lengths"]["rewards"]["broken"]["enough"] == 2


def test_a_row_of_the_table_for_each_proxy_and_size(
    curve: ScalingCurve, result: dict[str, Any], tmp_path: Path
) -> None:
    results.write(tmp_path / "out", curve, result)
    with (tmp_path / "out" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["proxy"], int(row["n"])) for row in rows] == [
        (proxy.name, n) for proxy in curve.curves for n in curve.ns
    ]
    by_place = iter(rows)
    for proxy in curve.curves:
        for place in range(3):
            row = next(by_place)
            assert curve.kl_bound is not None
            assert proxy.generated_tokens is not None
            wanted = {
                "gold": proxy.gold.mean,
                "gold_low": proxy.gold.low,
                "gold_high": proxy.gold.high,
                "gain": proxy.gain.mean,
                "gain_low": proxy.gain.low,
                "gain_high": proxy.gain.high,
                "failure_rate": proxy.failures,
                "tie_rate": proxy.ties,
                "generated_tokens": proxy.generated_tokens,
                "scored_tokens": proxy.scored_tokens,
                "kl_bound": curve.kl_bound,
            }
            assert {name: float(row[name]) for name in wanted} == {
                name: float(values[place]) for name, values in wanted.items()
            }
            known = proxy.proxy is not None and np.isfinite(proxy.proxy.mean[place])
            assert bool(row["proxy_value"]) == known
            assert row["seconds"] == row["monte_carlo_error"] == ""


def test_what_was_written_is_read(
    curve: ScalingCurve, result: dict[str, Any], tmp_path: Path
) -> None:
    results.write(tmp_path, curve, result)
    assert results.read(tmp_path) == result


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is unreadable (No such file or directory); make it with `bestofn curve -o "),
        ("{", "is not JSON"),
        ("[]", "is not a curve of this version; make it with `bestofn curve -o "),
        ('{"ns": []}', "is not a curve"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "curve.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        results.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'curve.json'} ")
    assert sentence in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "curve.json").write_bytes(b'{"title": "\xe9"}')
    with pytest.raises(ConfigError, match="is not JSON"):
        results.read(tmp_path)


def test_a_folder_that_cannot_be_made(curve: ScalingCurve, result: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BestOfNError, match="cannot write"):
        results.write(tmp_path / "file", curve, result)
