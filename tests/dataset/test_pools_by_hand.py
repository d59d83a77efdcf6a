"""Pools that are made by hand: a prompt and responses a row."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool

ROWS: list[dict[str, Any]] = [
    {"prompt": "Name 4 fruits.", "responses": ["apple, pear", "fig"], "answer": "fig"},
    {
        "id": 7,
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "Say x."}]}],
        "responses": [
            {"text": "x", "token_count": 3, "model": "m"},
            [{"role": "assistant", "content": "y"}],
            [{"type": "text", "text": "z"}],
        ],
        "columns": {"answer": "x"},
    },
]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_prompt_and_responses_are_a_pool(tmp_path: Path) -> None:
    first, second = pool.read(written(tmp_path / "p.jsonl", ROWS))
    assert first.prompt == as_prompt("Name 4 fruits.")
    assert first.prompt.columns == second.prompt.columns | {"answer": "fig"}
    assert [(c.index, c.text) for c in first.candidates] == [(0, "apple, pear"), (1, "fig")]
    assert second.prompt.id == "7"
    assert second.prompt.messages[0].content == "Say x."
    assert [c.text for c in second.candidates] == ["x", "y", "z"]
    assert second.candidates[0].token_count == 3


def test_it_is_scored_by_a_named_engine_and_resumed(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", ROWS)
    refused = bestofn("score", path, "--reward", "flip")
    assert refused.exit_code == 2
    assert "name the model (--engine)" in refused.output
    assert list(pool.read(path)) == list(pool.read(written(tmp_path / "q.jsonl", ROWS)))
    score = ["score", path, "--reward", "flip", "--engine", "tiny"]
    done(*score)
    rows = path.read_bytes()
    assert "already" in done(*score)
    assert path.read_bytes() == rows
    done("score", path, "--reward", "gold", "--verifier", "exact:answer")
    gold = [[c.scores["gold"].value for c in row.candidates] for row in pool.read(path)]
    assert gold == [[0, 1], [1, 0, 0]]
    assert all("flip" in c.scores for row in pool.read(path) for c in row.candidates)


def test_it_is_scored_into_another_file(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", ROWS)
    before = path.read_bytes()
    score = ["score", path, "-o", tmp_path / "s.jsonl", "--reward", "longest"]
    done(*score)
    done(*score)
    assert path.read_bytes() == before
    done("export", tmp_path / "s.jsonl", "-o", tmp_path / "best.csv")
    assert "apple, pear" in (tmp_path / "best.csv").read_text()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"responses": ["a"]}, "no field 'prompt'"),
        ({"prompt": "x", "responses": []}, "'responses' must be a list of at least one response"),
        ({"prompt": "x", "responses": "a"}, "'responses' must be a list of at least one response"),
        ({"prompt": "x", "responses": ["a", 3]}, "'responses.1' is wrong: a response is a text"),
        ({"prompt": "x", "responses": [None]}, "'responses.0' is wrong: a response is a text"),
        ({"prompt": "x", "responses": [{"text": 3}]}, "text' is wrong: Input should be a valid"),
        ({"prompt": "x", "responses": [[{"role": "user", "content": "a"}]]}, "of the assistant"),
        ({"prompt": " ", "responses": ["a"]}, "the prompt is empty"),
        ({"prompt": "x", "responses": ["a"], "id": 1.5}, "'id' must be text"),
        ({"prompt": "Name 4 fruits.", "responses": ["a"]}, "is in line 1 already; each row needs"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    path = written(tmp_path / "p.jsonl", [ROWS[0], row])
    with pytest.raises(ConfigError) as caught:
        list(pool.read(path))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert sentence in str(caught.value)
