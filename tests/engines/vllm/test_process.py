"""How the engine's processes start, fail and end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from serving import require_vllm
from test_fork import run_forking

from bestofn.engines.base import load_engine
from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError, EngineError


@pytest.fixture(autouse=True)
def _vllm_is_there() -> None:
    require_vllm()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"max_model_length": 9}, ConfigError, "max_model_length; did you mean max_model_len"),
        ({"logprobs_mode": "raw_logits"}, ConfigError, "which scores rely on"),
        ({"disable_log_stats": True}, ConfigError, "which scores rely on"),
        ({"compilation_config": {"bogus": 1}}, ConfigError, "refuses an engine argument"),
        ({"max_model_len": 4096}, EngineError, r"max_model_len \(4096\) is greater"),
        # What the engine process dies of.
        ({"kv_cache_memory_bytes": 1 << 20}, EngineError, "KV cache.*kv_cache_memory_bytes"),
    ],
)
def test_arguments_that_do_not_work(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        load_engine("vllm:tiny", enforce_eager=True, **arguments)


def test_unsupported_architecture(tmp_path: Path) -> None:
    config = json.loads((Path(locate("tiny")) / "config.json").read_text())
    shutil.copytree(locate("tiny"), tmp_path, dirs_exist_ok=True)
    config |= {"architectures": ["NoSuchForCausalLM"], "model_type": "mamba"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=r"NoSuchForCausalLM.*give it a model that it serves"):
        load_engine(f"vllm:{tmp_path}")


def test_without_vllm_the_sentence_says_what_to_install() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'vllm' else find(name, *a); "
        "import bestofn; bestofn.load_engine('vllm:tiny')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: engines of the form 'vllm:MODEL' need vLLM: pip install" in done.stderr


# As a user writes it: no `if __name__ == "__main__"`, no close().
SCRIPT = """
    import json, os, signal, sys, threading, time
    from bestofn import BestOfN, FLIPReward, SamplingParams, load_engine
    from bestofn.tiny import heldout_tasks

    engine = load_engine("vllm:tiny", kv_cache_memory_bytes=1 << 28, enforce_eager=True)
    forced = SamplingParams(max_tokens=300, extra={"min_tokens": 300, "ignore_eos": True})
    best = BestOfN(engine, FLIPReward(engine), n=8, sampling=forced)
    prompts = [task.instruction for task in heldout_tasks(60)]

    def tell(**what):
        print(json.dumps(what), flush=True)

    sent = 0.0

    def interrupt():
        global sent
        while engine.running < 100:
            time.sleep(0.01)
        tell(running=engine.running)
        sent = time.monotonic()
        os.killpg(0, signal.SIGINT)  # as the terminal does: to every process of the group

    threading.Thread(target=interrupt).start()
    try:
        for _ in best.select_many(prompts, progress=False):
            pass
    except KeyboardInterrupt:
        while engine.running:
            time.sleep(0.005)
        tell(idle_after=time.monotonic() - sent)
    # The engine has survived, and has nothing else to do.
    finished = []
    engine.on_finished = finished.append
    again = BestOfN(engine, FLIPReward(engine), n=2).select("Name 4 fruits.")
    queued = max(o.metrics.scheduled_ts - o.metrics.queued_ts for o in finished)
    tell(fallback=again.fallback, seconds=again.usage.seconds, queued=queued)
    raise RuntimeError("the script ends with an exception")
"""


def processes_of(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = entry.read_text().rpartition(") ")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(owner) == group and state != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted by /proc")
@pytest.mark.usefixtures("sigint")
def test_interrupt_and_exit_leave_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    package = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": package},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    ended = time.monotonic()
    while processes_of(process.pid) and time.monotonic() < ended + 60:
        time.sleep(0.05)
    print(f"\n{out}no process left {time.monotonic() - ended:.1f} s after the exit")
    assert not processes_of(process.pid)
    said = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert said[0]["running"] >= 100, err
    assert "idle_after" in said[1]
    assert said[2]["fallback"] is False
    assert process.returncode == 1
    assert "the script ends with an exception" in err
    assert "Exception ignored" not in err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted by /proc")
def test_the_engine_ends_with_a_killed_process() -> None:
    code = (
        "import time; from bestofn import load_engine; "
        "engine = load_engine('vllm:tiny', kv_cache_memory_bytes=1 << 26, enforce_eager=True); "
        "print('ready', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while processes_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not processes_of(process.pid)
    finally:
        for left in processes_of(process.pid):
            os.kill(left, signal.SIGKILL)


FORKED_THEN_DEAD = """
import asyncio, signal

async def killed(engine):
    forced = SamplingParams(max_tokens=400, extra={"min_tokens": 400, "ignore_eos": True})
    prompts = [as_prompt(f"Add 2 and {i}.") for i in range(16)]
    tasks = [asyncio.create_task(engine.generate(prompt, forced)) for prompt in prompts]
    while engine.running < 16:
        await asyncio.sleep(0.01)
    for process in engine._process.llm.engine_core.resources.engine_manager.processes:
        os.kill(process.pid, signal.SIGKILL)
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

if __name__ == "__main__":
    engine = load_engine("vllm:tiny", kv_cache_memory_bytes=1 << 26, enforce_eager=True)
    first = ask(engine)

    def work():
        refused(lambda: ask(engine))
        engine.close()

    in_child(work)
    print("parent:", bool(first) and bool(ask(engine)))
    failures = concurrency.run(killed(engine))
    print("failed:", sum(isinstance(failure, EngineError) for failure in failures), failures[0])
    refused(lambda: ask(engine))
    engine.close()
    refused(lambda: ask(engine))
    engine.close()  # a second time does nothing
"""


def test_a_forked_process_has_no_engine_and_a_dead_one_fails_fast() -> None:
    of_fork, *after = run_forking(FORKED_THEN_DEAD).partition("parent: True")
    assert "EngineError: a loaded model works only in the process that made it" in of_fork
    _, failed, dead, closed = "".join(after).splitlines()
    assert failed.startswith("failed: 16 the vLLM engine has died")
    assert re.fullmatch("EngineError: .*has died.*", dead)
    assert re.fullmatch("EngineError: .*closed.*", closed)
