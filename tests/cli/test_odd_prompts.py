"""Commands read prompts in every form, and half surrogate pairs, as cut emoji leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, done, lines, refused, rows_of
from hypothesis import given
from hypothesis import strategies as st

from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.store.journal import manifest
from bestofn.types import Candidate, Message, Pool, Score

AUDIT = ["audit", "--prompts", "in.jsonl", "--reward", "longest", "--attack", "empty"]
COMMANDS: dict[str, list[object]] = {
    "select": ["select", "in.jsonl", "-o", "select/rows.jsonl", "-n", 1, *SMALL],
    "sample": ["sample", "in.jsonl", "-o", "sample/rows.jsonl", "-m", 1, *SMALL],
    "audit": [*AUDIT, "-o", "audit", *SMALL],
}
PATHS = {
    "select": Path("select/rows.jsonl"),
    "sample": Path("sample/rows.jsonl"),
    "audit": Path("audit/audit.jsonl"),
}
CALL = {"function": {"name": "w", "arguments": {"city": "Bonn \udc00"}}}
HALVES: list[dict[str, Any]] = [
    {"prompt": "Name 4 fruits \ud83d now.", "note": "\udcff", "key": "a\ud83d", "\ud83d": 1},
    {
        "prompt": [
            {"role": "system", "content": "Be \ud83d brief."},
            {"role": "user", "content": "Weather \udc00?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "20 C \ud83d"},
        ],
        "note": ["\ud83d"],
        "key": "b",
        "\ud83d": 2,
    },
    {"prompt": "Name 2 fruits.", "note": "x", "key": "c", "\ud83d": 3},
]


@pytest.mark.usefixtures("here", "one_model")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_answered_conversation_needs_its_option(command: str) -> None:
    turns = [("human", "Name 4 fruits."), ("gpt", "Apple, pear, plum, fig.")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    Path("in.jsonl").write_text(json.dumps(row) + "\n")
    line = [*COMMANDS[command], *(["--honest-column", "dropped_answer"] * (command == "audit"))]
    said = refused(*line)
    assert "in.jsonl, line 1: column 'conversations': " in said
    assert "--drop-last-assistant" in said
    done(*line, "--drop-last-assistant")
    (found,) = rows_of(PATHS[command])
    assert found["prompt"] == "Name 4 fruits."
    assert found["columns"] == {"dropped_answer": "Apple, pear, plum, fig."}


@pytest.mark.usefixtures("here", "one_model")
def test_items_of_chat_messages_and_text_parts() -> None:
    part = [{"type": "text", "text": "a fruit"}]
    item = {
        "id": "1",
        "subset": "S",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Name fruits."}]}],
        "chosen": [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "apple"}]],
        "rejected": [part, {"role": "assistant", "content": part}, "\udc00"],
    }
    Path("items.json").write_text(json.dumps([item], indent=1))
    for _ in range(2):
        done("rewardbench", "--data", "items.json", "-o", "out", "--reward", "longest")
    (row,) = rows_of("out/items-0.jsonl")
    assert row["prompt"] == "Name fruits."
    right = {c["text"]: c["scores"]["gold"]["value"] for c in row["candidates"]}
    assert right == {"apple": 1.0, "a fruit": 0.0, "\ufffd": 0.0}
    assert len(row["candidates"]) == 4


@pytest.mark.usefixtures("here", "one_model")
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("old", [False, True])
def test_a_rerun_finds_its_rows(command: str, named: bool, old: bool) -> None:
    lines("in.jsonl", HALVES)
    line = [*COMMANDS[command], *(["--id-column", "key"] if named else [])]
    done(*line)
    path = PATHS[command]
    if old:  # as version 0.1 wrote it
        path.write_text(path.read_text("utf-8").replace("\ufffd", "?"), "utf-8")
        begun = json.loads(manifest(path).read_text())
        del begun["drop_last_assistant"]
        manifest(path).write_text(json.dumps(begun))
    rows = path.read_bytes()
    assert len(rows_of(path)) == 3
    done(*line)
    done(*line)
    assert path.read_bytes() == rows


ANY_TEXT = st.text(st.characters(codec=None), min_size=1).filter(str.strip)


@given(text=ANY_TEXT, name=ANY_TEXT, column=ANY_TEXT, response=ANY_TEXT)
def test_what_is_written_is_read(text: str, name: str, column: str, response: str) -> None:
    turns = [{"role": "user", "content": text}, Message("user", text, {"name": name})]
    prompt = as_prompt(turns, name, {"a": 1})
    again = pool.loads(pool.dumps(Pool(prompt, [Candidate(0, "x", scores={"r": Score(1.0)})])))
    assert (again.prompt, again.prompt.columns) == (prompt, {"a": 1})
    line = pool.dumps(Pool(prompt, [Candidate(0, response)]))
    line.encode()
    assert pool.dumps(pool.loads(line)) == line


def test_ids_are_those_of_version_0_1() -> None:
    assert as_prompt("Name 4 fruits \ud83d now.").id == "51d04ac1b2dc425d"
