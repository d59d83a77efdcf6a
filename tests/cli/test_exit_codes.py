"""What the exit code says: 1 where all failed, 2 where there is nothing to do it with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedEngine
from typer.testing import CliRunner, Result

from bestofn.cli import app
from bestofn.errors import EngineError

TINY = ["--engine", "tiny"]
SMALL = [*TINY, "--max-tokens", 8]
LONG = "fox " * 2000  # more than the model's context


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Result, *sentences: str) -> str:
    """The command said why there is no result, and nothing else went wrong."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for sentence in sentences:
        assert sentence in last
    return result.stdout


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Name {n} fruits.", "answer": "fig"} for n in (2, 3)]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("long.jsonl").write_text(json.dumps({"prompt": LONG}) + "\n")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers nothing."""

    def answer(*_: Any) -> Exception:
        return EngineError("the server is gone")

    monkeypatch.setattr("bestofn.config.load_engine", lambda *_, **__: ScriptedEngine(answer))


# --- no candidate ---------------------------------------------------------------------------------


def test_ask_without_a_candidate_gives_the_reasons_and_no_best() -> None:
    told = failed(bestofn("ask", LONG, "-n", 2), "no candidate could be drawn", "context holds 512")
    assert "best:" not in told
    assert "first:" not in told


def test_the_json_of_ask_without_a_candidate_has_the_error() -> None:
    data = json.loads(failed(bestofn("ask", LONG, "-n", 2, "--json")))
    assert "all 2 candidates failed" in data["error"]
    assert data["fallback"] is True


@pytest.mark.parametrize("limit", [[], ["--max-error-rate", 1]])
@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_select_without_any_response(limit: list[object], shown: list[object]) -> None:
    command = ["select", "long.jsonl", "-n", 2, "-o", "out.jsonl", *SMALL, *limit, *shown]
    for _ in range(2):  # a rerun answers nothing, so it says the same
        told = failed(bestofn(*command), "context holds")
        if shown:
            summary = json.loads(told)
            assert (summary["rows"], [*summary["errors"].values()]) == (1, [1])
    assert len(Path("out.jsonl").read_text().splitlines()) == 1


def test_select_with_a_response_is_no_failure() -> None:
    Path("both.jsonl").write_text(Path("p.jsonl").read_text() + Path("long.jsonl").read_text())
    result = bestofn("select", "both.jsonl", "-n", 2, "-o", "out.jsonl", *SMALL)
    assert result.exit_code == 0, result.output


def test_a_pool_without_any_candidate_fails_again_when_the_command_is_given_again() -> None:
    for _ in range(2):
        result = bestofn("sample", "long.jsonl", "-m", 2, "-o", "pool.jsonl", *SMALL)
        failed(result, "no candidate could be drawn", "context holds 512", "--retry-errors")


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("shown", [[], ["--json"]])
@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--prompts", 2, "-n", 2],
        ["audit", "--prompts", "p.jsonl", *TINY, "--attack", "quote", "--reward", "flip"],
        ["run", "recipe.yaml"],
    ],
)
def test_other_commands_that_draw_nothing(command: list[object], shown: list[object]) -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: x, prompts: p.jsonl, m: 2}\n"
        "score: {rewards: [longest, {reward: first, name: gold}]}\n"
    )
    failed(bestofn(*command, *shown), "be drawn", "the server is gone")


# --- no score -------------------------------------------------------------------------------------
# The embedded model was never trained to judge: each verdict is unparseable.


def test_ask_without_a_score_shows_the_first_candidate_as_such() -> None:
    result = bestofn("ask", "Name 4 fruits.", "-n", 2, "--reward", "pointwise")
    told = failed(result, "every score failed, so no candidate was chosen", "parse")
    assert "first: " in told
    assert "best:" not in told


def test_the_json_of_ask_without_a_score_is_a_fallback() -> None:
    result = bestofn("ask", "Name 4 fruits.", "-n", 2, "--reward", "pointwise", "--json")
    data = json.loads(failed(result))
    assert (data["fallback"], data["error"], data["index"]) == (True, None, 0)
    assert data["text"] == data["candidates"][0]["text"]


def test_select_in_which_no_score_chose() -> None:
    command = ["select", "p.jsonl", "-n", 2, "-o", "out.jsonl", "--reward", "pointwise", *SMALL]
    for _ in range(2):
        data = json.loads(failed(bestofn(*command, "--json"), "its score has chosen", "parse"))
        assert data["fallbacks"] == data["rows"] == 2


def test_scores_that_all_failed() -> None:
    assert bestofn("sample", "p.jsonl", "-m", 2, "-o", "pool.jsonl", *SMALL).exit_code == 0
    for _ in range(2):
        result = bestofn("score", "pool.jsonl", "--reward", "pointwise")
        failed(result, "every score of pointwise failed", "parse", "--again")
    gold = ["--reward", "pointwise,gold", "--verifier", "iexact:answer"]
    failed(bestofn("score", "pool.jsonl", *gold), "every score of pointwise failed")
    both = bestofn("score", "pool.jsonl", "--reward", "pointwise,flip")
    assert both.exit_code == 0, both.output


@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_a_recipe_whose_scores_all_failed_is_shown_all_the_same(shown: list[object]) -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: tiny, prompts: p.jsonl, m: 2, max_tokens: 8}\n"
        "score: {rewards: [pointwise, gold], verifier: 'iexact:answer'}\n"
    )
    told = failed(bestofn("run", "recipe.yaml", *shown), "every score of pointwise failed")
    assert not shown or json.loads(told)["proxies"]["pointwise"]["failed_scores"] == 1
    assert Path("out", "report.html").exists()


@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_rewardbench_whose_scores_all_failed(shown: list[object]) -> None:
    command = ["rewardbench", "--data", "tiny:1", *TINY, "-o", "out", "--resamples", 100]
    failed(bestofn(*command, "--reward", "pointwise,listwise", *shown), "every score failed")
    both = bestofn(*command, "--reward", "pointwise,listwise,longest")
    assert both.exit_code == 0, both.output


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("shown", [[], ["--json"]])
def test_an_audit_whose_scores_all_failed(shown: list[object]) -> None:
    honest = ["--honest-column", "answer", "--attack", "quote,empty"]
    command = ["audit", "--prompts", "p.jsonl", *TINY, *honest, "--reward", "flip", "-o", "out"]
    failed(bestofn(*command, *shown), "every score failed")
    assert Path("out", "audit.html").exists()


# --- nothing to do --------------------------------------------------------------------------------

Command = Callable[[str], list[object]]
COMMANDS: dict[str, Command] = {
    "select": lambda path: ["select", path, "-o", "out.jsonl", *SMALL],
    "sample": lambda path: ["sample", path, "-o", "out.jsonl", *SMALL],
    "audit": lambda path: ["audit", "--prompts", path, *TINY, "-o", "out"],
    "rewardbench": lambda path: ["rewardbench", "--data", path, "--reward", "first", "-o", "out"],
    "score": lambda path: ["score", path, "--reward", "first"],
    "curve": lambda path: ["curve", path, "-o", "out"],
    "curve with limits": lambda path: ["curve", path, "-o", "out", "--limits", 2],
    "export": lambda path: ["export", path, "-o", "out.csv"],
}


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_input_is_said_to_be_empty(name: str, content: str) -> None:
    Path("empty.jsonl").write_text(content)
    result = bestofn(*COMMANDS[name]("empty.jsonl"))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert "empty.jsonl" in result.stderr
    assert any(f"{no} {what}" in result.stderr for no, what in EMPTY)


EMPTY = [("holds no", "prompts"), ("holds no", "items"), ("has no", "rows"), ("holds no", "rows")]


@pytest.mark.parametrize("name", ["select", "sample", "audit"])
def test_a_table_of_a_header_alone_is_empty(name: str) -> None:
    Path("head.csv").write_text("prompt,answer\n")
    result = bestofn(*COMMANDS[name]("head.csv"))
    assert (result.exit_code, "head.csv holds no prompts" in result.stderr) == (2, True)


def test_an_input_that_has_become_empty_is_told_though_there_are_rows() -> None:
    command = ["select", "p.jsonl", "-n", 1, "-o", "out.jsonl", *SMALL]
    assert bestofn(*command).exit_code == 0
    Path("p.jsonl").write_text("")
    result = bestofn(*command)
    assert (result.exit_code, "p.jsonl holds no prompts" in result.stderr) == (2, True)
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


def test_an_input_of_bad_rows_alone_is_told() -> None:
    Path("bad.jsonl").write_text('{"prompt": ""}\n{"x": 1}\n')
    result = bestofn("select", "bad.jsonl", "-o", "out.jsonl", *SMALL, "--on-bad-row", "skip")
    assert result.exit_code == 2
    assert "none of the 2 rows of bad.jsonl can be used; out.jsonl.run/skipped.txt" in result.stderr


def test_a_part_of_the_prompts_may_be_empty() -> None:
    Path("one.jsonl").write_text('{"prompt": "Name 2 fruits."}\n')
    parts = [
        bestofn("select", "one.jsonl", "-n", 1, "-o", f"{k}.jsonl", "--shard", f"{k}/2", *SMALL)
        for k in (1, 2)
    ]
    assert [part.exit_code for part in parts] == [0, 0]
