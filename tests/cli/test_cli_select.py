"""`bestofn select` on the command line."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bestofn.cli import app

TINY = ["--engine", "tiny"]
SMALL = [*TINY, "-n", 2, "--max-tokens", 12, "--seed", 0]


def bestofn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = bestofn(*arguments)
    assert result.exit_code == 0, result.output
    return result


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_rows_and_a_summary(output: Path) -> None:
    result = done("select", "tiny:3", "-o", output, *SMALL)
    assert "3 rows finished\n6 candidates" in result.stdout
    assert [len(row["candidates"]) for row in rows_of(output)] == [2, 2, 2]
    summary = json.loads(done("select", "tiny:3", "-o", output, *SMALL, "--json").stdout)
    assert (summary["rows"], summary["earlier"], summary["candidates"]) == (3, 3, 6)


def test_votes_by_the_answers_of_a_verifier(output: Path) -> None:
    pytest.importorskip("math_verify")
    by = ["--reward", "majority", "--reward-option"]
    done("select", "tiny:2", "-o", output, *SMALL, *by, "answer=math")
    assert all(row["reward"] == "majority" for row in rows_of(output))
    refused = bestofn("select", "tiny:2", "-o", output, *SMALL, *by, "answer=maths", "--fresh")
    assert refused.exit_code == 2
    assert "no verifier 'maths'" in refused.stderr


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_status_tells_what_is_there_and_writes_nothing(output: Path) -> None:
    done("select", "tiny:2", "-o", output, *SMALL)
    before = contents(output.parent)
    told = done("select", "-o", output, "--status").stdout
    assert f"{output}: no run writes it\n2 rows finished\n" in told
    status = json.loads(done("select", "-o", output, "--status", "--json").stdout)
    assert (status["rows"], status["running"]) == (2, False)
    assert {
        path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()
    } == before


def test_errors_are_counted_by_their_reason(tmp_path: Path, output: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Name 2 fruits."}\n{"prompt": "' + "word " * 2000 + '"}\n')
    result = done("select", prompts, "-o", output, *SMALL, "--json")
    summary = json.loads(result.stdout)
    assert summary["rows"] == 2
    assert list(summary["errors"].values()) == [1]
    assert "context holds N" in str(summary["errors"])


def test_fresh_begins_beside(output: Path) -> None:
    done("select", "tiny:2", "-o", output, *SMALL)
    before = output.read_bytes()
    refused = bestofn("select", "tiny:2", "-o", output, *SMALL, "--temperature", 0.5)
    assert refused.exit_code == 2
    assert "temperature was 1.0 and is 0.5" in refused.stderr
    assert "--fresh" in refused.stderr
    done("select", "tiny:2", "-o", output, *SMALL, "--temperature", 0.5, "--fresh")
    assert output.read_bytes() == before
    assert len(rows_of(output.with_name("out-2.jsonl"))) == 2


def test_a_rerun_with_a_higher_limit_and_an_export(output: Path) -> None:
    done("select", "tiny:4", "-o", output, *SMALL, "--limit", 2)
    before = output.read_bytes()
    done("select", "tiny:4", "-o", output, *SMALL, "--format", "csv")
    assert output.read_bytes().startswith(before)
    assert len(rows_of(output)) == 4
    assert output.with_suffix(".csv").read_text().count("\n") >= 5


def test_an_export_replaces_no_file_but_an_earlier_export(output: Path) -> None:
    table = output.with_suffix(".csv")
    table.write_text("prompt\nName 2 fruits.\n")
    arguments = ["select", table, "-o", output, *SMALL]
    for _ in range(2):
        refused = bestofn(*arguments, "--format", "csv")
        assert refused.exit_code == 2
        assert "the export would replace it; name another output" in refused.stderr
        assert table.read_text() == "prompt\nName 2 fruits.\n"
        done(*arguments)
    done("select", "tiny:2", "-o", output.with_name("b.jsonl"), *SMALL, "--format", "csv")
    done("select", "tiny:2", "-o", output.with_name("b.jsonl"), *SMALL, "--format", "csv")


def test_status_tells_what_adaptive_n_saves(output: Path) -> None:
    summary = done("select", "tiny:4", "-o", output, *SMALL, "-n", 6, "--adaptive", 0.5)
    status = done("select", "-o", output, "--status")
    saved = [line for line in summary.stdout.splitlines() if " of 24 saved" in line]
    assert len(saved) == 1
    assert saved[0] in status.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing.jsonl"], "nothing.jsonl"),
        ([], "name the input"),
        (["tiny:2", "-n", 0], "the key 'n' is wrong"),
        (["tiny:2", "--reward", "flop"], "did you mean 'flip'?"),
        (["tiny:2", "--shard", "3/2"], "shard"),
        (["tiny:2", "--temperature", -1], "temperature"),
        (["tiny:2", "--adaptive", 0, "--reward", "flip-likelihood"], "--adaptive-prior"),
        (["tiny:2", "--replicas", 2], "name it (--cluster local)"),
        (["tiny:2", "--format", "jsonl"], "leave out --format"),
        (["tiny:2", "--keep", "all"], "name the format as well (--format)"),
        (["tiny:2", "--round-size", 2], "round_size does nothing without --adaptive"),
        (["tiny:2", "--verifier", "tiny"], "verifier does nothing with 'flip'"),
        (["tiny:2", "--reward", "first", "--reward-engine", "tiny"], "as no model scores"),
        (["tiny:2", "--reward-engine-arg", "a=1"], "does nothing without --reward-engine"),
        (["a:x:b"], "there is no file a:x:b"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_a_model_is_loaded(
    output: Path, arguments: list[object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bestofn.config.load_engine", lambda *_, **__: pytest.fail("loaded"))
    result = bestofn("select", *TINY, *arguments, "-o", output)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_keeps_the_finished_rows(output: Path) -> None:
    command = ["select", "tiny:400", "-o", str(output), *map(str, SMALL), "--window", "4"]
    run = subprocess.Popen([sys.executable, "-m", "bestofn", *command], stderr=subprocess.PIPE)
    while not (output.exists() and output.stat().st_size) and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    told = run.communicate(timeout=60)[1].decode()
    assert run.returncode == 130
    assert f"interrupted; {output} keeps what is in it; rerun the command to resume" in told
    assert "Traceback" not in told
    assert 1 <= len(rows_of(output)) < 400
