"""Whatever ends a run, the next one resumes it."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bestofn.store.pool import ScoreFile

SCRIPT = Path(__file__).with_name("answering.py")
ROWS = 200


def started(
    source: Path, output: Path, seconds: float = 0.03, command: str = "select"
) -> subprocess.Popen[bytes]:
    line = [sys.executable, str(SCRIPT), command, str(source), str(output), str(seconds)]
    return subprocess.Popen(line, stderr=subprocess.PIPE)


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def grown(path: Path, lines: int, run: subprocess.Popen[bytes]) -> None:
    """Waits until the file has so many lines more, or the run is over."""
    wanted = whole_lines(path) + lines
    while whole_lines(path) < wanted and run.poll() is None:
        time.sleep(0.002)


def contents(path: Path) -> dict[str, Any]:
    """What the rows say, whatever they cost, by their ids, each of which is there once."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    answers = {row["id"]: without_costs(row) for row in rows}
    assert len(answers) == len(rows)
    return answers


def without_costs(value: Any) -> Any:
    if isinstance(value, list):
        return [without_costs(item) for item in value]
    if not isinstance(value, dict):
        return value
    costs = ("usage", "seconds", "counts")
    return {name: without_costs(item) for name, item in value.items() if name not in costs}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "Name {n} fruits."}}\n' for n in range(ROWS)))
    return path


@pytest.mark.parametrize("command", ["sample", "score", "select"])
def test_twenty_kills(source: Path, tmp_path: Path, command: str) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    if command == "score":
        assert started(source, tmp_path / "pool.jsonl", 0, "sample").wait(60) == 0
        source = tmp_path / "pool.jsonl"
    assert started(source, whole, 0, command).wait(60) == 0
    output = ScoreFile(killed, "flip").path if command == "score" else killed
    moments = random.Random(0)
    before = b""
    for _ in range(20):
        run = started(source, killed, command=command)
        grown(output, moments.randint(1, 8), run)
        time.sleep(moments.random() * 0.02)
        run.kill()
        assert run.wait(10) == -signal.SIGKILL
        # What was finished stays as it is, to the byte.
        now = output.read_bytes()
        finished = before[: before.rfind(b"\n") + 1]
        assert now.startswith(finished)
        before = now
    assert 20 <= whole_lines(output) < ROWS
    assert started(source, killed, 0, command).wait(60) == 0
    expected = ScoreFile(whole, "flip").path if command == "score" else whole
    assert contents(output) == contents(expected)
    assert len(contents(output)) == ROWS
