"""Tables at 80 columns, with names and numbers as real runs have them: no number is ever cut."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from making import made, written
from typer.testing import CliRunner

from bestofn.cli import app
from bestofn.cli.app import console
from bestofn.cli.tables import Column, show_table
from bestofn.doctor import Finding

SUBSETS = [
    *("Focus", "Factuality", "Precise IF", "Math", "Safety", "Code", "Long context retrieval"),
    *("Multilingual-reasoning", "Instruction following with many constraints"),
]
REWARDS = {
    "flip": "longest",
    "flip-likelihood": "shortest",
    "pairwise-round-robin": "first",
    "Skywork-Reward-V2-Llama-3.1-8B": "random",
}


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 80)


def shown(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in result.stdout
    return result.stdout


def numbers(text: str, start: str) -> list[str]:
    """Those of the first row that starts so."""
    (row, *_) = [line for line in text.splitlines() if line.startswith(start)]
    return re.findall(r"(?<![\w.-])\d+\.\d{3}\b", row)


def test_nine_subsets_and_four_rewards_with_long_names(tmp_path: Path) -> None:
    data = tmp_path / "items.jsonl"
    rows = [
        {"id": "1", "prompt": "Name a colour.", "subset": subset,
         "chosen": ["the longest of all"], "rejected": ["x", "yy", "zzz"]}
        for subset in SUBSETS
    ]  # fmt: skip
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = [{"reward": reward, "name": name} for name, reward in REWARDS.items()]
    recipe = {"output": str(tmp_path / "out"), "rewardbench": {"data": str(data)}}
    recipe["rewardbench"] |= {"rewards": rewards}  # type: ignore[operator]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    text = shown("run", tmp_path / "recipe.yaml")
    for start in ("Focus", "Precise IF", "Multilingual", "Instruction", "mean "):
        assert len(numbers(text, start)) == 1 + len(REWARDS), text
    assert numbers(text, "Focus")[:3] == ["0.250", "1.000", "0.000"]
    assert text.count("[1.00, 1.00]") == 2


def test_models_with_long_names(tmp_path: Path) -> None:
    models = [
        {"name": name, "engine": "tiny"}
        for name in ("Qwen/Qwen3-4B-Instruct-2507", "meta-llama/Llama-3.1-8B-Instruct-FP8-dynamic")
    ]
    rewards = [{"reward": "flip-likelihood", "name": f"flip-likelihood-{k}"} for k in range(4)]
    recipe = {"data": "tiny:1", "subsets": ["Math"], "models": models, "rewards": rewards}
    content = {"output": str(tmp_path / "out"), "rewardbench": recipe}
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    text = shown("run", tmp_path / "recipe.yaml")
    assert len(numbers(text, "Qwen/")) == 4
    assert len(numbers(text, "meta-llama/")) == 4


def test_a_curve_of_eight_sizes_and_long_names(tmp_path: Path) -> None:
    gold = [float(i % 3 == 0) for i in range(128)]
    names = ["flip", "0.5 * flip-likelihood of Qwen3-4B-Instruct-2507 + pairwise-round-robin"]
    pools = [made(f"p{k}", dict.fromkeys((*names, "gold"), gold)) for k in range(12)]
    text = shown("curve", written(tmp_path / "pool.jsonl", pools), "-o", tmp_path / "out")
    assert all(f"N={n}" in text for n in (1, 2, 4, 8, 16, 32, 64, 128))
    for start in ("flip", "0.5 *", "random", "oracle"):
        assert len(numbers(text, start)) == 8, text


def test_an_audit_of_many_rewards(tmp_path: Path) -> None:
    names = ",".join(["longest", "shortest", "first", "random", "flip", "flip-likelihood"])
    text = shown(
        "audit", "--prompts", "tiny:2", "--engine", "tiny", "--reward", names, "-o", tmp_path
    )
    rates = [line.split() for line in text.splitlines() if line.startswith("quote-then-answer")]
    assert len([rate for row in rates for rate in row if rate.isdecimal()]) == 8


def test_long_responses_and_reasons_of_ask() -> None:
    text = shown("ask", "Write a letter about the hammer in 30 sentences.", "-n", 3, "--max-tokens",
                 30, "--seed", 0)  # fmt: skip
    assert len(re.findall(r"│ \d+ +│ \d\.\d{3} ", text)) == 3


def test_the_doctor_cuts_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/" + "a-folder/" * 12 + "libtorch.so"
    found = [Finding("torch", "broken", f"does not import: {path}", "pip install torch")]
    monkeypatch.setattr("bestofn.doctor.examine", lambda: found)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "…" not in result.stdout
    detail = result.stdout.splitlines()[0].index("detail")
    remedy = result.stdout.splitlines()[0].index("what to do")
    cells = "".join(line[detail:remedy].strip() for line in result.stdout.splitlines())
    assert path in cells


def test_columns_that_do_not_fit_go_below(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(f"reward {k}", [f"0.{k:03}", ""]) for k in range(30)]
    show_table("Title", "model", ["a name of many letters in one row", "b"], columns)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert [f"0.{k:03}" for k in range(30)] == re.findall(r"0\.\d{3}", text)
    assert text.count("(continued)") >= 2


def test_names_fold_beside_numbers_that_do_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 24)
    long: dict[str, Any] = {"names": ["n" * 50], "columns": [Column("x", ["[0.25, 0.75]"])]}
    show_table("Title", "model", **long)
    text = capsys.readouterr().out
    assert "[0.25, 0.75]" in text
    assert text.count("n") >= 50
