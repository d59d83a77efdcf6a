"""Exit code 1: the command ran, and all of it failed; what is in its files says why."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, TINY, bestofn, done, lines, refused, rows_of
from fakes import ScriptedEngine

from bestofn.errors import EngineError

LONG = "fox " * 2000  # more than the model's context
JUDGED = ["ask", "Name 4 fruits.", "-n", 2, "--reward", "pointwise"]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers nothing."""

    def answer(*_: Any) -> Exception:
        return EngineError("the server is gone")

    monkeypatch.setattr("bestofn.models.load_engine", lambda *_, **__: ScriptedEngine(answer))


# The embedded model was never trained to judge: each verdict is unparseable.
@pytest.mark.parametrize(
    ("command", "sentence", "reason", "label"),
    [
        (["ask", LONG, "-n", 2], "no candidate could be drawn", "context holds 512", None),
        (JUDGED, "every score failed, so no candidate was chosen", "parse", "first: "),
    ],
)
def test_ask_without_a_selection(
    command: list[object], sentence: str, reason: str, label: str | None
) -> None:
    said = refused(*command, code=1)
    assert sentence in said
    assert reason in said
    shown = bestofn(*command).stdout
    assert "best:" not in shown
    assert ("first: " in shown) is (label is not None)
    data = json.loads(bestofn(*command, "--json").stdout)
    assert (data["fallback"], data["index"]) == (True, 0)
    assert (data["error"] is None) is (label is not None)


@pytest.mark.parametrize("limit", [[], ["--max-error-rate", 1]])
def test_select_without_any_response(limit: list[object]) -> None:
    lines("long.jsonl", [{"prompt": LONG}])
    command = ["select", "long.jsonl", "-n", 2, "-o", "out.jsonl", *SMALL, *limit]
    for _ in range(2):  # a rerun answers nothing, so it says the same
        refused(*command, code=1)
        summary = json.loads(bestofn(*command, "--json").stdout)
        assert (summary["rows"], [*summary["errors"].values()]) == (1, [1])
    assert len(rows_of("out.jsonl")) == 1
    lines("both.jsonl", [{"prompt": LONG}, {"prompt": "Name 2 fruits."}])
    done("select", "both.jsonl", "-n", 2, "-o", "both_out.jsonl", *SMALL)


def test_select_in_which_no_score_chose() -> None:
    command = ["select", "p.jsonl", "-n", 2, "-o", "out.jsonl", "--reward", "pointwise", *SMALL]
    for _ in range(2):
        assert "no row has a response that its score has chosen" in refused(*command, code=1)


def test_a_pool_without_any_candidate_fails_again_when_the_command_is_given_again() -> None:
    lines("long.jsonl", [{"prompt": LONG}])
    for _ in range(2):
        said = refused("sample", "long.jsonl", "-m", 2, "-o", "pool.jsonl", *SMALL, code=1)
        assert "no candidate could be drawn" in said
        assert "--retry-errors" in said


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--prompts", 2, "-n", 2],
        ["audit", "--prompts", "p.jsonl", *TINY, "--attack", "quote", "--reward", "flip"],
        ["run", "recipe.yaml"],
    ],
)
def test_other_commands_that_draw_nothing(command: list[object]) -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: x, prompts: p.jsonl, m: 2}\n"
        "score: {rewards: [longest, {reward: first, name: gold}]}\n"
    )
    said = refused(*command, code=1)
    assert "be drawn" in said
    assert "the server is gone" in said


def test_scores_that_all_failed() -> None:
    done("sample", "p.jsonl", "-m", 2, "-o", "pool.jsonl", *SMALL)
    for _ in range(2):
        said = refused("score", "pool.jsonl", "--reward", "pointwise", code=1)
        assert "every score of pointwise failed" in said
        assert "--again" in said
    gold = ["--reward", "pointwise,gold", "--verifier", "iexact:answer"]
    assert "every score of pointwise" in refused("score", "pool.jsonl", *gold, code=1)
    done("score", "pool.jsonl", "--reward", "pointwise,flip")


def test_a_recipe_whose_scores_all_failed_is_shown_all_the_same() -> None:
    Path("recipe.yaml").write_text(
        "output: out\nsample: {engine: tiny, prompts: p.jsonl, m: 2, max_tokens: 8}\n"
        "score: {rewards: [pointwise, gold], verifier: 'iexact:answer'}\n"
    )
    assert "every score of pointwise failed" in refused("run", "recipe.yaml", code=1)
    told = bestofn("run", "recipe.yaml", "--json").stdout
    assert json.loads(told)["proxies"]["pointwise"]["failed_scores"] == 1
    assert Path("out", "report.html").exists()


@pytest.mark.parametrize(
    ("command", "page", "and_one"),
    [
        (["rewardbench", "--data", "tiny:1", *TINY, "--resamples", 100], "rewardbench.json",
         "pointwise,longest"),
        (["audit", "--prompts", "p.jsonl", *TINY, "--honest-column", "answer", "--attack",
          "quote,empty"], "audit.html", None),
    ],
)  # fmt: skip
def test_evaluations_whose_scores_all_failed(
    command: list[object], page: str, and_one: str | None
) -> None:
    said = refused(*command, "--reward", "pointwise", "-o", "out", code=1)
    assert "every score failed" in said
    assert Path("out", page).exists()
    if and_one:
        done(*command, "--reward", and_one, "-o", "out")
