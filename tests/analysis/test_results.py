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


def test_the_json_is_strict_and_what_is_not_known_is_null(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    broken = result["proxies"]["broken"]
    assert broken["proxy"]["mean"] == [None] * 3
    assert broken["failed_scores"] == 1
    assert broken["seconds"] is None
    assert result["lengths"]["spearman"]["broken"]["mean"] is None
    assert result["proxies"]["majority"]["proxy"] is None


def test_what_was_left_out_and_how_it_was_made(curve: ScalingCurve, result: dict[str, Any]) -> None:
    assert result["left_out"] == [{"id": "d", "reason": "candidate 0 has no gold value: it failed"}]
    assert (result["title"], result["pools"], result["prompts"]) == ("T", ["pool.jsonl"], 3)
    assert (result["candidates"], result["ns"]) == ({"least": 4, "most": 4}, [1, 2, 4])
    assert result["summary"] == [*map(str, findings(curve, LengthAnalysis(curve)))]
    assert result["findings"][0]["claim"] == "3 prompts with 4 candidates each"
    assert result["iid"]
    assert results.as_dict(curve)["lengths"] is None
    assert result["lengths"]["limits"] == [2]
    assert {*result["lengths"]["rewards"]} == {"flip", "broken"}
    assert result["lengths"]["rewards"]["broken"]["enough"] == 2


def test_what_is_written_are_the_curves_numbers(
    curve: ScalingCurve, result: dict[str, Any], tmp_path: Path
) -> None:
    results.write(tmp_path / "out", curve, result)
    assert results.read(tmp_path / "out") == result
    with (tmp_path / "out" / "curve.csv").open(newline="") as file:
        rows = iter(list(csv.DictReader(file)))
    assert [*result["proxies"]] == [proxy.name for proxy in curve.curves]
    for proxy in curve.curves:
        found = result["proxies"][proxy.name]
        peak, after = proxy.after_peak
        assert found["after_peak"]["n"] == peak
        assert found["after_peak"]["gold"]["mean"] == after.mean.tolist()
        assert found["gold"]["low"] == proxy.gold.low.tolist()
        for place, n in enumerate(curve.ns):
            row = next(rows)
            assert (row["proxy"], row["n"]) == (proxy.name, str(n))
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
                name: float(values[place])  # type: ignore[index]
                for name, values in wanted.items()
            }
            known = proxy.proxy is not None and np.isfinite(proxy.proxy.mean[place])
            assert bool(row["proxy_value"]) == known
            assert row["seconds"] == row["monte_carlo_error"] == ""
    assert next(rows, None) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is unreadable (No such file or directory); make it with `bestofn curve -o "),
        (b"{", "is not JSON"),
        (b'{"title": "\xe9"}', "is not JSON"),
        (b"[]", "is not a curve of this version; make it with `bestofn curve -o "),
        (b'{"summary": [], "proxies": {}, "pools": []}', "is not a curve of this version"),
    ],
)
def test_an_unreadable_curve_is_one_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "curve.json").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        results.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'curve.json'} ")
    assert sentence in str(caught.value)


def test_a_folder_that_cannot_be_made(curve: ScalingCurve, result: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BestOfNError, match="cannot write"):
        results.write(tmp_path / "file", curve, result)
