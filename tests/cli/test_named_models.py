"""A user's numbers come from the model that was named, never from the toy by default."""

from pathlib import Path

import pytest
from making import made, written
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.store.pool import read_origins

RECIPE = "output: out\nsample: {prompts: p.jsonl}\nscore: {rewards: [longest]}\n"
BENCH = "output: out\nrewardbench: {data: 'tiny:1', rewards: [flip]}\n"


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text('{"prompt": "Name 2 fruits.", "best": "fig, pear"}\n')
    Path("recipe.yaml").write_text(RECIPE)
    Path("bench.yaml").write_text(BENCH)
    written(Path("pool.jsonl"), [made("a", {"longest": [1.0, 2.0]})])


@pytest.mark.parametrize(
    "command",
    [
        ["select", "p.jsonl", "-o", "out.jsonl"],
        ["select", "tiny:2", "-o", "out.jsonl"],
        ["select", "p.jsonl", "-o", "out.jsonl", "--reward-engine", "tiny"],
        ["sample", "p.jsonl", "-o", "out.jsonl"],
        ["sample", "tiny:2", "-o", "out.jsonl", "--engine-arg", "max_rows=4"],
        ["audit", "--prompts", "p.jsonl", "-o", "out"],
        ["audit", "--prompts", "p.jsonl", "--reward", "longest", "-o", "out"],
        ["audit", "--prompts", "tiny:2", "-o", "out"],
        ["rewardbench", "--data", "tiny:1", "--reward", "flip", "-o", "out"],
        ["run", "recipe.yaml"],
        ["run", "bench.yaml"],
        ["score", "pool.jsonl", "--reward", "flip", "--engine-arg", "max_rows=4"],
        ["score", "pool.jsonl", "--reward", "flip", "--engine-option", "guided=true"],
    ],
)
def test_a_model_is_named_or_nothing_is_done(
    command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.config.load_engine", lambda *_, **__: pytest.fail("loaded"))
    result = bestofn(*command)
    assert result.exit_code == 2, result.output
    assert "no model is named; give --engine vllm:MODEL" in result.stderr
    assert "--engine tiny for a try" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_prompts_of_an_audit_are_named() -> None:
    result = bestofn("audit", "--engine", "tiny")
    assert (result.exit_code, result.stderr) == (2, "error: the options: --prompts is missing\n")


@pytest.mark.parametrize(
    "command",
    [
        ["rewardbench", "--data", "tiny:1", "--reward", "longest", "-o", "out"],
        ["rewardbench", "--data", "tiny:1", "--reward", "random", "-o", "out", "--seeds", 2],
        ["audit", "--prompts", "p.jsonl", "--honest-column", "best", "--reward", "longest"],
        ["audit", "--prompts", "tiny:2", "--reward", "longest", "--attack", "quote"],
        ["score", "pool.jsonl", "--reward", "shortest"],
        ["score", "pool.jsonl", "--reward", "flip", "--reward-engine", "tiny"],
    ],
)
def test_where_no_model_is_needed_none_is_asked_for(command: list[object]) -> None:
    result = bestofn(*command)
    assert result.exit_code == 0, result.output


def test_the_first_look_takes_the_embedded_model() -> None:
    assert bestofn("ask", "Name 4 fruits.", "-n", 1).exit_code == 0
    assert bestofn("demo", "--prompts", 2, "-n", 1).exit_code == 0


def test_what_drew_a_pool_scores_it() -> None:
    draw = [
        "sample",
        "p.jsonl",
        "--engine",
        "tiny",
        "-m",
        2,
        "--max-tokens",
        8,
        "-o",
        "drawn.jsonl",
    ]
    assert bestofn(*draw).exit_code == 0
    assert bestofn("score", "drawn.jsonl", "--reward", "flip-likelihood").exit_code == 0
    made_by = read_origins(Path("drawn.jsonl"))["flip-likelihood"]
    assert made_by["model"]["engine"] == "tiny"
