"""Scripts that fork, run in a process of their own."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
SETUP = """
import os, sys, traceback
sys.path.insert(0, {tests!r})

from fakes import ScriptedEngine
from bestofn import BestOfN, FLIPReward, ScalarReward, load_engine
from bestofn import concurrency
from bestofn.engines.base import SamplingParams
from bestofn.errors import EngineError
from bestofn.prompts import as_prompt
from bestofn.rewards.baselines import Longest
from bestofn.rewards.base import load_reward

def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        print("child ended with", os.waitstatus_to_exitcode(status))
        return
    try:
        work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def ask(engine):
    return concurrency.run(engine.generate(as_prompt("x"), SamplingParams(max_tokens=4))).text

def refused(work):
    try:
        print("no error but", work())
    except EngineError as error:
        print("EngineError:", error)
"""


def run_forking(script: str) -> str:
    """What a script prints; one that hangs is killed, which fails the test."""
    code = SETUP.format(tests=str(TESTS)) + script
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=TESTS.parent
    )
    assert done.returncode == 0, done.stderr
    assert "child ended with 0" in done.stdout, done.stdout + done.stderr
    return done.stdout
