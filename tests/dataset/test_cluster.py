"""Replicas on a Ray cluster: the same rows, whichever dies on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bestofn.config import ClusterConfig, SelectConfig
from bestofn.dataset.ray import BLOCK, select_on_cluster
from bestofn.errors import EngineError

pytest.importorskip("ray")

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = [sys.executable, "-m", "bestofn", "select"]
HELD = """
import asyncio
from pathlib import Path

from bestofn.engines.hf import TransformersEngine
from bestofn.tiny import heldout_tasks

LATER = {task.instruction for task in heldout_tasks(160)[96:]}


class Held(TransformersEngine):
    def __init__(self):
        super().__init__("tiny")

    async def generate(self, prompt, params, seed=None):
        while prompt.messages[-1].content in LATER and not Path("open").exists():
            await asyncio.sleep(0.05)
        return await super().generate(prompt, params, seed)
"""


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def grown(path: Path, lines: int, run: subprocess.Popen[bytes]) -> None:
    """Waits until the file has so many lines, or the run is over."""
    while (not path.exists() or path.read_bytes().count(b"\n") < lines) and run.poll() is None:
        time.sleep(0.05)


def replicas() -> list[int]:
    """The processes of the replicas that are at work on this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def answers(path: Path) -> dict[str, tuple[str, list[str]]]:
    return {
        row["id"]: (row["prompt"], [candidate["text"] for candidate in row["candidates"]])
        for row in rows_of(path)
    }


def test_a_replica_is_killed_and_the_run_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only 96 of the 160 prompts are answered before the run is stopped, however fast it is.
    (tmp_path / "held.py").write_text(HELD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    output = tmp_path / "out.jsonl"
    alone = [*COMMAND, "tiny:160", "--engine", "held:Held", "--reward", "flip", "-n", "2"]
    alone += ["--seed", "0", "--max-tokens", "16", "-o"]
    command = [*alone, str(output), "--cluster", "local", "--replicas", "2"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        grown(output, BLOCK, run)
        victims = replicas()
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        grown(output, 4 * BLOCK, run)
        run.send_signal(signal.SIGTERM)  # the run itself, once a replica is gone
        run.wait(60)
    finally:
        run.kill()
    before = output.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 4 * BLOCK <= before.count(b"\n") <= 96, run.stderr and run.stderr.read()
    (tmp_path / "open").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(before)
    rows = rows_of(output)
    assert len(rows) == len({row["id"] for row in rows}) == 160
    assert all(row["error"] is None and len(row["candidates"]) == 2 for row in rows)

    # Without a cluster the same candidates come out, up to what another batch rounds otherwise.
    subprocess.run([*alone, "alone.jsonl"], check=True)
    ours, theirs = answers(output), answers(tmp_path / "alone.jsonl")
    assert ours.keys() == theirs.keys()
    assert sum(ours[name] != theirs[name] for name in ours) <= 4


def test_the_command_of_the_page_keeps_the_order_when_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (arguments,) = re.findall(r"^bestofn (select tiny.*)$", (DOCS / "cluster.md").read_text(), re.M)
    command = [sys.executable, "-m", "bestofn", *arguments.split(), "--ordered"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = [row["prompt"] for row in rows_of(tmp_path / "cluster.jsonl")]
    from bestofn.tiny import heldout_tasks

    assert asked == [task.instruction for task in heldout_tasks(64)]
    assert "64 rows finished" in done.stdout


@pytest.mark.parametrize(
    ("cluster", "engine", "sentence"),
    [
        ("local", "hf:.", "a replica failed: cannot load model"),
        ("auto", "tiny", "the cluster failed: "),
        ("nonesuch://head:1", "tiny", "the cluster failed: "),
    ],
)
def test_what_cannot_work_is_a_sentence(
    cluster: str, engine: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = SelectConfig(prompts="tiny:3", engine=engine, n=1)
    with pytest.raises(EngineError, match=sentence) as caught:
        select_on_cluster(config, ClusterConfig(cluster=cluster), Path("out.jsonl"))
    assert "\n" not in str(caught.value)
