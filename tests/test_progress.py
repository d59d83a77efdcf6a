"""What a run writes to standard error where that is a file: sparse lines, no bars."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from making import made, written

TESTS = Path(__file__).parent
MANY = """
import sys
sys.path.insert(0, {tests!r})
import time
import bestofn.progress
bestofn.progress.EVERY = {every}
from fakes import ScriptedEngine
from bestofn import BestOfN
from bestofn.rewards.baselines import Longest
best = BestOfN(ScriptedEngine(), Longest(), n=2, window=1)
for _ in best.select_many([str(i) for i in range(400)], progress={progress}):
    time.sleep(0.002)
"""


def written_to_stderr(command: list[str], tmp_path: Path) -> str:
    """With standard error in a file, and with what makes rich take a file for a terminal."""
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        environment = os.environ | {"FORCE_COLOR": "1", "PYTHONPATH": str(TESTS.parent)}
        subprocess.run(
            [sys.executable, *command],
            check=True,
            timeout=240,
            stderr=file,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
    return log.read_bytes().decode()


@pytest.mark.parametrize(("every", "progress"), [(1000.0, True), (0.2, True), (0.0, False)])
def test_select_many_writes_lines_now_and_then_and_one_at_the_end(
    every: float, progress: bool, tmp_path: Path
) -> None:
    script = MANY.format(tests=str(TESTS), every=every, progress=progress)
    lines = written_to_stderr(["-c", script], tmp_path).splitlines()
    assert (len(lines) > 1) == (every == 0.2)
    assert all(" of 400 prompts, " in line and line.endswith(" left") for line in lines)
    assert bool(lines) == progress
    end = "400 of 400 prompts, ", " candidates/s, 0.0% failed, 0% cached, 00:00 left"
    assert all(line.startswith(end[0]) and line.endswith(end[1]) for line in lines[-1:])


COMMANDS = [
    "ask Fruits? -n 2 --max-tokens 8",
    "ask Fruits? -n 2 --max-tokens 8 --engine hf:{tiny}",
    "demo --prompts 3 -n 2",
    "select tiny:3 --engine tiny -o {folder}/out.jsonl -n 2 --max-tokens 8",
    "sample tiny:3 --engine tiny -o {folder}/pool.jsonl -m 2 --max-tokens 8",
    "rewardbench --data tiny:1 --engine tiny --reward flip-likelihood -o {folder}/bench",
    "audit --prompts tiny:1 --engine tiny -o {folder}/audit",
    "export {rows} -o {folder}/out.csv",
    "doctor",
]
# In one process, as each would spend most of its time on importing torch.
ONE_BY_ONE = """
import json, sys
from bestofn.cli.app import app
for command in json.loads(sys.argv[1]):
    print("====", command[0], file=sys.stderr, flush=True)
    try:
        app(command)
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def test_commands_write_no_bars_to_a_file(tmp_path: Path) -> None:
    from bestofn.engines.model_files import locate

    places = {"tiny": locate("tiny"), "folder": str(tmp_path), "rows": str(tmp_path / "rows.jsonl")}
    written(tmp_path / "rows.jsonl", [made("a", {"flip": [0.0, 1.0]})])
    commands = [[part.format(**places) for part in command.split()] for command in COMMANDS]
    log = written_to_stderr(["-c", ONE_BY_ONE, json.dumps(commands)], tmp_path)
    logs = log.split("==== ")[1:]
    assert [log.split()[0] for log in logs] == [command[0] for command in commands]
    for log in logs:
        assert "\r" not in log
        assert "\x1b[?25" not in log  # a cursor that is hidden, as for a spinner
        assert "%|" not in log
        assert "Loading weights" not in log
        assert len(log.splitlines()) <= 1 + 4
