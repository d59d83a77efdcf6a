"""Tables at 80 columns, with names and numbers as real runs have them: no number is ever cut."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, bestofn, done, lines
from making import made, written

from bestofn.cli import doctor
from bestofn.cli.app import Column, console, show_table

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

pytestmark = pytest.mark.usefixtures("here", "one_model")


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 80)


def shown(*arguments: object) -> str:
    text = done(*arguments).stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    return text


def bench(**fields: Any) -> str:
    """What is shown of a recipe."""
    Path("recipe.yaml").write_text(json.dumps({"output": "out", "rewardbench": fields}))
    return shown("run", "recipe.yaml")


def numbers(text: str, start: str) -> list[str]:
    """Those of the rows that start so."""
    rows = [line for line in text.splitlines() if line.startswith(start)]
    return re.findall(r"(?<![\w.-])\d+\.\d{3}\b", " ".join(rows))


def item(subset: str) -> Mapping[str, Any]:
    answers = {"chosen": ["the longest of all"], "rejected": ["x", "yy", "zzz"]}
    return {"id": "1", "prompt": "Name a colour.", "subset": subset, **answers}


def test_nine_subsets_and_four_rewards_with_long_names() -> None:
    rewards = [{"reward": reward, "name": name} for name, reward in REWARDS.items()]
    text = bench(data=str(lines("items.jsonl", map(item, SUBSETS))), rewards=rewards)
    for start in ("Focus", "Precise IF", "Multilingual", "Instruction", "mean "):
        assert len(numbers(text, start)) == 2 * (1 + len(REWARDS)), text
    assert numbers(text, "Focus")[:3] == ["0.250", "1.000", "0.000"]
    assert text.count("[1.00, 1.00]") == 2


def test_a_curve_of_eight_sizes_and_long_names() -> None:
    gold = [float(i % 3 == 0) for i in range(128)]
    names = ["flip", "0.5 * flip-likelihood of Qwen3-4B-Instruct-2507 + pairwise-round-robin"]
    pools = [made(f"p{k}", dict.fromkeys((*names, "gold"), gold)) for k in range(12)]
    text = shown("curve", written(Path("pool.jsonl"), pools), "-o", "out")
    assert all(f"N={n}" in text for n in (1, 2, 4, 8, 16, 32, 64, 128))
    for start in ("flip", "0.5 *", "random", "oracle"):
        assert len(numbers(text, start)) >= 8, text


def test_an_audit_of_many_rewards() -> None:
    names = ",".join(["longest", "shortest", "first", "random", "flip", "flip-likelihood"])
    text = shown("audit", "--prompts", "tiny:2", *TINY, "--reward", names)
    rates = [line.split() for line in text.splitlines() if line.startswith("quote-then-answer")]
    assert len([rate for row in rates for rate in row if rate.isdecimal()]) == 8


def test_the_doctor_cuts_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/" + "a-folder/" * 12 + "libtorch.so"
    found = doctor.Finding("torch", "broken", f"does not import: {path}", "pip install torch")
    monkeypatch.setattr(doctor, "examine", lambda: [found])
    shown = bestofn("doctor").stdout.splitlines()
    detail, remedy = shown[0].index("detail"), shown[0].index("what to do")
    assert path in "".join(line[detail:remedy].strip() for line in shown)


def test_columns_that_do_not_fit_go_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[Column] = [(f"reward {k}", [f"0.{k:03}", ""]) for k in range(30)]
    show_table("Title", "model", ["a name of many letters in one row", "b"], columns)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert [f"0.{k:03}" for k in range(30)] == re.findall(r"0\.\d{3}", text)
    assert text.count("(continued)") >= 2
    monkeypatch.setattr(console, "_width", 24)
    show_table("Title", "model", ["n" * 50], [("x", ["[0.25, 0.75]"])])
    text = capsys.readouterr().out
    assert "[0.25, 0.75]" in text
    assert text.count("n") >= 50
