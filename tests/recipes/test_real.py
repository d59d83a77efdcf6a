"""The recipes for a real small model go through, and checks can tell right from wrong."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import done

from bestofn.prompts import as_prompt
from bestofn.recipe import load_recipe
from bestofn.store import pool

REAL = Path(__file__).parents[2] / "recipes" / "real"
ROWS = [json.loads(line) for line in (REAL / "checkable.jsonl").read_text().splitlines()]
# By the kind of a row's id: a response that follows the rule, and one that does not.
BOTH = {
    "existence": ("leaf cup light rain trees bench water practice honey flower", "Tea is old."),
    "forbidden_words": ("It is nice.", "hot colors green pool hive"),
    "frequency": ("leaf light trees water honey " * 3, "leaf light trees water honey"),
    "number_words": ("Short.", "word " * 40),
    "number_bullet_lists": ("* a\n* b\n* c", "* a\n* b"),
    "no_comma": ("It is old.", "Old, and good."),
    "quotation": ('"It is old."', "It is old."),
    "title": ("<<Tea>>\nIt is old.", "Tea\nIt is old."),
    "number_highlighted_sections": ("*Tea* is *old*.", "*Tea* is old."),
    "postscript": ("It is old.\nP.S. Drink some.", "It is old."),
    "number_paragraphs": ("It is old.\n***\nIt is good.", "It is old. It is good."),
}


@pytest.fixture(scope="module")
def right() -> Any:
    return runpy.run_path(str(REAL / "checkable.py"))["right"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_verdict_on_each_row(row: dict[str, Any], right: Any) -> None:
    prompt = as_prompt(row["prompt"], row["id"], row)
    kind = row["id"].rpartition("-")[0]
    if "answer" in row:
        good, bad = f"That makes {row['answer']}", f"That makes {int(row['answer']) + 1}"
    elif kind == "end_checker":
        good, bad = f"Tea is old. {row['kwargs'][0]['end_phrase']}", "Tea is old."
    else:
        good, bad = BOTH[kind]
    assert right(prompt, good)
    assert not right(prompt, bad)


def test_there_are_a_hundred_different_prompts() -> None:
    assert len({row["prompt"] for row in ROWS}) == len({row["id"] for row in ROWS}) == 100


def test_from_prompts_to_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REAL.parents[1])
    small = ["--engine", "tiny", "--limit", 2, "-m", 2, "--max-tokens", 24]
    done("run", REAL / "checkable.yaml", *small, "-o", tmp_path / "out")
    rewards = yaml.safe_load((REAL / "checkable.yaml").read_text())["score"]["rewards"]
    wanted = {reward if isinstance(reward, str) else reward["name"] for reward in rewards}
    for row in pool.read(tmp_path / "out" / "pool.jsonl"):
        for candidate in row.candidates:
            assert {*candidate.scores} == wanted
            assert candidate.scores["gold"].value in (0, 1)


def test_rewards_on_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REAL.parents[1])
    small = ["--engine", "tiny", "--limit-per-subset", 1]
    found = json.loads(done("run", REAL / "rewards.yaml", *small, "-o", tmp_path, "--json").stdout)
    wanted = [reward.label for reward in load_recipe(REAL / "rewards.yaml").rewardbench.rewards]
    assert [*found["rewards"]] == wanted
    assert found["items"] == len(found["subsets"]) == 6
