"""Half a surrogate pair, as cut emoji leave behind: written, read and resumed by every command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exporting import read_back
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bestofn.cli import app
from bestofn.dataset.export import export
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.types import Candidate, Message, Pool, Score

SMALL = ["--engine", "tiny", "--max-tokens", "8"]
CALL = {"function": {"name": "w", "arguments": {"city": "Bonn \udc00"}}}
ROWS: list[dict[str, Any]] = [
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def done(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def commands(source: Path, folder: Path) -> dict[str, tuple[list[Any], Path]]:
    """Each command, and the rows that it writes."""
    audit = ["audit", "--prompts", source, "--reward", "longest", "--attack", "empty"]
    return {
        "select": (["select", source, "-o", folder / "s.jsonl", "-n", 1], folder / "s.jsonl"),
        "sample": (["sample", source, "-o", folder / "p.jsonl", "-m", 1], folder / "p.jsonl"),
        "audit": ([*audit, "-o", folder / "audit"], folder / "audit" / "audit.jsonl"),
    }


def as_version_0_1(path: Path) -> None:
    """The file as that version wrote it."""
    path.write_text(path.read_text("utf-8").replace("\ufffd", "?"), "utf-8")


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("command", ["select", "sample", "audit"])
@pytest.mark.parametrize("change", [lambda path: None, as_version_0_1])
def test_a_rerun_finds_its_rows(
    tmp_path: Path, source: Path, command: str, named: bool, change: Callable[[Path], None]
) -> None:
    arguments, path = commands(source, tmp_path)[command]
    arguments += SMALL + (["--id-column", "key"] if named else [])
    done(*arguments)
    change(path)
    rows = path.read_bytes()
    assert len(rows_of(path)) == 3
    done(*arguments)
    done(*arguments)
    assert path.read_bytes() == rows


def test_ids_are_those_of_version_0_1() -> None:
    assert as_prompt("Name 4 fruits \ud83d now.").id == "51d04ac1b2dc425d"


def test_scores_are_added_once_to_a_pool_and_a_page_is_made(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps(row | {"note": "\ud83d"}) + "\n" for row in ROWS))
    done("sample", source, "-o", path, "-m", 2, *SMALL)
    score = ["score", path, "--reward", "flip,gold", "--verifier", "exact:note"]
    done(*score)
    rows = path.read_bytes()
    assert "already" in done(*score)
    assert path.read_bytes() == rows
    done("curve", path, "-o", tmp_path / "c", "--proxy", "flip", "--ns", "1,2")
    done("report", tmp_path / "c", "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!")


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "hf"])
def test_exports_hold_the_same(tmp_path: Path, source: Path, format: Any) -> None:
    path = tmp_path / "s.jsonl"
    done("select", source, "-o", path, "-n", 1, *SMALL)
    for keep in ("best", "all", "sft"):
        export(path, tmp_path / "out", keep=keep, format=format, overwrite=True)  # type: ignore[arg-type]
        records = read_back(tmp_path / "out", format)
        assert len(records) == 3
        assert any("Name 4 fruits \ufffd now." in str(record) for record in records)
        assert (tmp_path / "out").exists()
        if format != "hf":
            (tmp_path / "out").unlink()


def test_items_of_a_benchmark(tmp_path: Path) -> None:
    item = {"id": "a\ud83d", "subset": "S\udc00", "prompt": "Name \ud83d.", "rejected": ["\udc00"]}
    source = tmp_path / "items.jsonl"
    source.write_text(json.dumps(item | {"chosen": ["apple \ud83d"]}) + "\n")
    rewardbench = ["rewardbench", "--data", source, "-o", tmp_path / "out", "--reward", "longest"]
    done(*rewardbench)
    path = tmp_path / "out" / "items-0.jsonl"
    rows = path.read_bytes()
    done(*rewardbench)
    assert path.read_bytes() == rows
    (row,) = rows_of(path)
    assert row["id"] == "S\ufffd/a\ufffd"
    assert {candidate["text"] for candidate in row["candidates"]} == {"apple \ufffd", "\ufffd"}


ANY_TEXT = st.text(st.characters(codec=None), min_size=1).filter(str.strip)


@given(text=ANY_TEXT, name=ANY_TEXT, column=ANY_TEXT, response=ANY_TEXT)
def test_what_is_written_is_read(text: str, name: str, column: str, response: str) -> None:
    turns = [{"role": "user", "content": text}, Message("user", text, {"name": name})]
    prompt = as_prompt(turns, name, {"a": 1})
    row = Pool(prompt, [Candidate(0, "x", scores={"r": Score(1.0)})])
    again = pool.loads(pool.dumps(row))
    assert (again.prompt, again.prompt.columns) == (prompt, {"a": 1})
    row = Pool(prompt, [Candidate(0, response)])
    line = pool.dumps(row)
    line.encode()
    assert pool.dumps(pool.loads(line)) == line


def test_halves_that_belong_together_are_their_character() -> None:
    assert as_prompt("\ud83d\ude00 \ude00").messages[0].content == "\U0001f600 \ufffd"


def test_a_pool_that_others_wrote_is_cleaned_when_it_is_read() -> None:
    candidate = {"index": 0, "text": "a \ud83d", "finish_reason": "stop"}
    row = {"id": "x\ud83d", "prompt": "b \udc00 \U0001f600", "candidates": [candidate]}
    again = pool.loads(json.dumps(row))
    assert again.prompt.id == "x\ufffd"
    assert again.prompt.messages[0].content == "b \ufffd \U0001f600"
    assert again.candidates[0].text == "a \ufffd"
