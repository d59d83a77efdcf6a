"""Every command that reads prompts reads them in every form, and says what it does not read."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.store.journal import manifest

TURNS = [("human", "Name 4 fruits."), ("gpt", "Apple, pear, plum, fig.")]
ROW = {"conversations": [{"from": who, "value": text} for who, text in TURNS]}
DROP = "--drop-last-assistant"
COMMANDS = {
    "select": ["select", "IN", "-o", "OUT", "-n", 1, "--max-tokens", 8, "--engine", "tiny"],
    "sample": ["sample", "IN", "-o", "OUT", "-m", 1, "--max-tokens", 8, "--engine", "tiny"],
    "audit": ["audit", "--prompts", "IN", "-o", "DIR", "--reward", "longest", "--attack", "empty",
              "--honest-column", "dropped_answer"],
}  # fmt: skip


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_answered_conversation_needs_its_option(tmp_path: Path, command: str) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps([ROW], indent=1))
    out = tmp_path / ("audit.jsonl" if command == "audit" else "out.jsonl")
    places = {"IN": source, "OUT": out, "DIR": tmp_path}
    arguments = [places.get(str(argument), argument) for argument in COMMANDS[command]]
    refused = bestofn(*arguments)
    assert refused.exit_code == 2
    assert f"{source}, item 0: column 'conversations': " in refused.output
    assert DROP in refused.output
    done = bestofn(*arguments, DROP)
    assert done.exit_code == 0, done.output
    (row,) = rows_of(out)
    assert row["prompt"] == "Name 4 fruits."
    assert row["columns"] == {"dropped_answer": "Apple, pear, plum, fig."}


def test_a_run_of_version_0_1_is_resumed(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Name 4 fruits."}\n')
    arguments = ["sample", source, "-o", out, "-m", 1, "--max-tokens", 8, "--engine", "tiny"]
    assert bestofn(*arguments).exit_code == 0
    begun = json.loads(manifest(out).read_text())
    del begun["drop_last_assistant"]
    manifest(out).write_text(json.dumps(begun))
    rows = out.read_bytes()
    again = bestofn(*arguments)
    assert again.exit_code == 0, again.output
    assert out.read_bytes() == rows


def test_an_exported_folder_is_selected_from(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    source, out, folder = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "folder"
    source.write_text('{"prompt": "Name 4 fruits.", "level": 3}\n')
    small = ["-n", 1, "--max-tokens", 8, "--engine", "tiny"]
    assert bestofn("select", source, "-o", out, *small).exit_code == 0
    assert bestofn("export", out, "-o", folder, "--format", "hf").exit_code == 0
    again = bestofn("select", folder, "-o", tmp_path / "again.jsonl", "--id-column", "id", *small)
    assert again.exit_code == 0, again.output
    (first,), (second,) = rows_of(out), rows_of(tmp_path / "again.jsonl")
    assert (second["id"], second["prompt"]) == (first["id"], first["prompt"])
    assert second["columns"]["level"] == 3
    assert second["columns"]["response"] == first["response"]


def test_items_of_chat_messages_and_text_parts(tmp_path: Path) -> None:
    part = [{"type": "text", "text": "a fruit"}]
    item = {
        "id": "1",
        "subset": "S",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Name fruits."}]}],
        "chosen": [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "apple"}]],
        "rejected": [part, {"role": "assistant", "content": part}, "none"],
    }
    (tmp_path / "items.json").write_text(json.dumps([item], indent=1))
    out = tmp_path / "out"
    for _ in range(2):
        done = bestofn(
            "rewardbench", "--data", tmp_path / "items.json", "-o", out, "--reward", "longest"
        )
        assert done.exit_code == 0, done.output
    (row,) = rows_of(out / "items-0.jsonl")
    assert row["prompt"] == "Name fruits."
    right = {c["text"]: c["scores"]["gold"]["value"] for c in row["candidates"]}
    assert right == {"apple": 1.0, "a fruit": 0.0, "none": 0.0}
    assert len(row["candidates"]) == 4
