"""Recorded responses as best-of-4 items: right and wrong ones are what they are said to be."""

import gzip
import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bestofn.config import RewardBenchConfig
from bestofn.evals.rewardbench.run import read_items

SCRIPT = Path(__file__).parents[2] / "recipes" / "alpaca_eval_items.py"


def row(number: int, preferences: Sequence[float], models: str = "abcdefgh") -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "prompt": f"Question {number}?",
        "candidates": [
            {"model": model, "text": f"{model} to {number}", "preference": preference}
            for model, preference in zip(models, preferences, strict=False)
        ],
    }


def items_of(
    folder: Path, rows: Sequence[object], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> dict[str, list[dict[str, Any]]]:
    """The items by subset."""
    source, output = folder / "rows.jsonl.gz", folder / "items.jsonl"
    with gzip.open(source, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(each) + "\n" for each in rows))
    command = [str(SCRIPT), str(source), "-o", str(output), *arguments]
    monkeypatch.setattr("sys.argv", command)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found: dict[str, list[dict[str, Any]]] = {"off-topic": [], "preference": []}
    for line in output.read_text().splitlines():
        found[json.loads(line)["subset"]].append(json.loads(line))
    return found


def test_off_topic_items_are_of_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = items_of(tmp_path, [row(n, [0.5] * 4) for n in range(6)], monkeypatch)["off-topic"]
    assert [item["id"] for item in found] == [f"p{n}" for n in range(6)]
    for item in found:
        assert item["chosen"][0].endswith(f"to {item['id'][1:]}")
        assert not any(text.endswith(f"to {item['id'][1:]}") for text in item["rejected"])
        assert len({*item["rejected"]}) == 3
        assert len({*item["models"]}) == 1


def test_preferences_are_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row(0, [0.95, 0.5, 0.1, 0.0, 0.05]),
        row(1, [0.89, 0.0, 0.0, 0.0]),
        row(2, [0.9, 0.0, 0.0, 0.2]),
    ]
    (item,) = items_of(tmp_path, rows, monkeypatch)["preference"]
    assert item["chosen"] == ["a to 0"]
    assert {*item["rejected"]} == {"c to 0", "d to 0", "e to 0"}
    assert "2 prompts have no item of preference: p1, p2" in capsys.readouterr().out
    looser = items_of(tmp_path, rows, monkeypatch, "--least", "0.8", "--most", "0.2")
    assert len(looser["preference"]) == 3


def test_a_seed_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(n, [0.9, 0.95, *[0.0] * 6]) for n in range(8)]
    first = items_of(tmp_path, rows, monkeypatch)
    assert items_of(tmp_path, rows, monkeypatch) == first
    assert items_of(tmp_path, rows, monkeypatch, "--seed", "1") != first


def test_real_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alpaca_rows: list[dict[str, Any]]
) -> None:
    found = items_of(tmp_path, alpaca_rows, monkeypatch)
    assert len(found["off-topic"]) == 300
    assert len(found["preference"]) > 150
    config = RewardBenchConfig(data=str(tmp_path / "items.jsonl"), rewards=["longest"])
    assert len(read_items(config)) == sum(map(len, found.values()))
