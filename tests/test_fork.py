"""Processes that were forked after a first use: what works there, and what says that it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest
from faulty_server import FaultyServer

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


def test_engines_and_functions_without_threads_work() -> None:
    shown = run_forking("""
engine = ScriptedEngine("an answer")
best = BestOfN(engine, FLIPReward(engine) + load_reward("gold", verifier="exact:answer"), n=2)
called = BestOfN(lambda prompt, n: [prompt * (i + 1) for i in range(n)], Longest(), n=3)
prompt = as_prompt("ab", columns={"answer": "an answer"})

def work():
    print("engine:", best.select(prompt).text, best.select(prompt).scores[0].value)
    print("function:", *[s.text for s in called.select_many(["ab", "c"], progress=False)])

work()
in_child(work)
""")
    assert shown.count("engine: an answer 1.0\nfunction: ababab ccc\n") == 2


def test_a_loaded_model_says_that_it_is_of_another_process() -> None:
    shown = run_forking("""
engine = load_engine("tiny")
sampling = SamplingParams(max_tokens=4)
drawing = BestOfN(engine, Longest(), n=2, sampling=sampling)
scoring = BestOfN(lambda prompt, n: ["x"] * n, FLIPReward(engine), n=2)
judging = BestOfN(lambda prompt, n: ["x", "y"], load_reward("pairwise", engine=engine), n=2)
drawing.select("Name 2 fruits.")

def work():
    for best in (drawing, scoring, judging):
        refused(lambda: best.select("Name 2 fruits."))
    refused(lambda: ask(engine))
    refused(lambda: ask(engine.with_options(chat_template_kwargs={"a": 1})))
    engine.close()

in_child(work)
print("parent:", drawing.select("Name 2 fruits.").error)
""")
    assert shown.count("EngineError: a loaded model works only in the process that made it") == 5
    assert "parent: None" in shown


def test_an_engine_for_a_server_connects_anew() -> None:
    with FaultyServer() as server:
        shown = run_forking(f"""
engine = load_engine("openai:{server.url}#model")
first = ask(engine)
in_child(lambda: print("same:", ask(engine) == first, engine.close()))
print("parent:", ask(engine) == first)
""")
    assert "same: True None" in shown
    assert "parent: True" in shown


def test_an_iteration_that_has_begun_is_of_its_process() -> None:
    shown = run_forking("""
best = BestOfN(ScriptedEngine(delay=lambda _: 0.05), Longest(), n=1, window=2)
many = best.select_many(["a", "b", "c", "d"], progress=False)
next(many)
in_child(lambda: refused(lambda: next(many)))
print("parent:", len(list(many)))
""")
    assert "EngineError: an iteration that has begun works only in the process that made" in shown
    assert "parent: 3" in shown


def test_a_checker_answers_each_process_apart() -> None:
    pytest.importorskip("math_verify")
    shown = run_forking("""
from bestofn.verifiers.base import load_verifier

verifier = load_verifier("math")
prompt = as_prompt("x", columns={"answer": "1/2"})
assert verifier(prompt, "The answer is 0.5")
pid = os.fork()
answer, verdict = ("3", False) if pid else ("0.5", True)
right = all(verifier(prompt, f"The answer is {answer}") is verdict for _ in range(300))
if not pid:
    os._exit(0 if right else 1)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print("parent:", right)
""")
    assert "parent: True" in shown
