"""Turns of tools and developers: selected, resumed, exported, read again, shown to rewards."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine

from bestofn import BestOfN, FLIPLikelihood, FLIPReward, PointwiseJudge
from bestofn.dataset import select_dataset
from bestofn.dataset.export import Format, export
from bestofn.dataset.sources import read_prompts
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.types import Message

CALL = {"id": "1", "type": "function", "function": {"name": "w", "arguments": {"city": "Bonn"}}}
CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "How warm is it in Bonn?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "20 C"},
]
ROWS: list[dict[str, Any]] = [{"messages": CHAT, "n": 1}, {"messages": CHAT[:2], "n": 2}]
NAMED = as_prompt([Message("user", "Hi.", {"name": "ann", "own": [1]})])


def selected(path: Path, rows: Any) -> list[dict[str, Any]]:
    best = BestOfN(lambda prompt, n: ["It is 20 degrees."] * n, Longest(), n=1)
    select_dataset(rows, path, best, progress=False)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_rerun_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    rows = selected(path, [*ROWS, NAMED])
    assert len(rows) == 3
    assert selected(path, [*ROWS, NAMED]) == rows
    assert rows[0]["prompt"][2] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert rows[2]["prompt"] == [{"role": "user", "content": "Hi.", "name": "ann", "own": [1]}]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "hf"])
def test_an_export_is_read_again(tmp_path: Path, format: Format) -> None:
    pytest.importorskip("datasets")
    selected(tmp_path / "out.jsonl", ROWS)
    target = tmp_path / f"best.{format}"
    export(tmp_path / "out.jsonl", target, format=format)
    again = read_prompts(target, id_column="id")
    assert [prompt.messages for prompt in again] == [
        as_prompt(r["messages"]).messages for r in ROWS
    ]
    sft = tmp_path / f"sft.{format}"
    export(tmp_path / "out.jsonl", sft, format=format, keep="sft")
    again = read_prompts(sft, id_column="id", drop_last_assistant=True)
    assert [prompt.messages for prompt in again] == [
        as_prompt(r["messages"]).messages for r in ROWS
    ]
    assert again[0].columns == {"dropped_answer": "It is 20 degrees."}


@pytest.mark.parametrize("make", [FLIPReward, FLIPLikelihood])
def test_flip_infers_the_last_user_message(make: Any) -> None:
    engine = ScriptedEngine("How warm is it in Bonn?")
    reward = make(engine)
    selection = BestOfN(lambda prompt, n: ["It is 20 degrees."], reward, n=1).select(CHAT)
    assert selection.candidates[0].scores[reward.name].reason is None
    backward, _ = [*((p, None) for p in engine.generated), *engine.scored][0]
    text = "\n".join(turn.content for turn in backward.messages)
    assert all(part in text for part in ("Be brief.", "20 C", "It is 20 degrees."))
    # The call would tell where the question was about, without any response.
    assert "Bonn" not in text


def test_flip_infers_what_a_developer_said() -> None:
    engine = ScriptedEngine("Be brief.")
    best = BestOfN(lambda prompt, n: ["20"], FLIPReward(engine, target="system"), n=1)
    assert best.select(CHAT).scores[0].value == 1
    text = "\n".join(turn.content for turn in engine.generated[0].messages)
    assert "How warm is it in Bonn?" in text
    assert "Be brief." not in text


def test_a_judge_sees_all_of_it() -> None:
    engine = ScriptedEngine('{"reasoning": "x", "grade": 7}')
    BestOfN(lambda prompt, n: ["20"], PointwiseJudge(engine), n=1).select(CHAT)
    text = "\n".join(turn.content for turn in engine.generated[0].messages)
    for part in ("System: Be brief.", "Tool call: ", '"city": "Bonn"', "Tool result: 20 C"):
        assert part in text
