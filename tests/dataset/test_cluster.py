"""Replicas on a Ray cluster: the same rows, whoever dies on the way."""

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
from bestofn.errors import BestOfNError, EngineError

pytest.importorskip("ray")

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = [sys.executable, "-m", "bestofn", "select"]
ALONE = ["--engine", "tiny", "-n", "2", "--seed", "0", "--max-tokens", "16"]
SMALL = [*ALONE, "--cluster", "local", "--replicas", "2"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


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


def test_a_replica_is_killed_and_the_run_another_time(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = [*COMMAND, "tiny:400", "-o", str(output), *SMALL]
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while lines_of(output) < BLOCK and run.poll() is None:
            time.sleep(0.05)
        victims = replicas()
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        while lines_of(output) < 8 * BLOCK and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)  # the run itself, once a replica is gone
        run.wait(60)
    finally:
        run.kill()
    before = output.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 8 * BLOCK <= before.count(b"\n") < 400
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(before)
    rows = rows_of(output)
    assert len(rows) == len({row["id"] for row in rows}) == 400
    assert all(row["error"] is None and len(row["candidates"]) == 2 for row in rows)

    # Without a cluster the same candidates come out, up to what another batch rounds otherwise.
    alone = tmp_path / "alone.jsonl"
    subprocess.run([*COMMAND, "tiny:400", "-o", str(alone), *ALONE], check=True)
    ours, theirs = answers(output), answers(alone)
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


def test_a_replica_that_cannot_load_its_model_is_a_sentence(tmp_path: Path) -> None:
    config = SelectConfig(prompts="tiny:3", engine=f"hf:{tmp_path}", n=1)
    with pytest.raises((EngineError, BestOfNError)) as caught:
        select_on_cluster(config, ClusterConfig(cluster="local"), tmp_path / "out.jsonl")
    assert "cannot load model" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["auto", "nonesuch://head:1"])
def test_a_cluster_that_is_not_there_is_a_sentence(address: str, tmp_path: Path) -> None:
    config = SelectConfig(prompts="tiny:3", engine="tiny", n=1)
    with pytest.raises(EngineError, match="the cluster"):
        select_on_cluster(config, ClusterConfig(cluster=address), tmp_path / "out.jsonl")
