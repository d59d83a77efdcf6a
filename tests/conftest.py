"""What many tests share: the embedded model, and a vLLM server of it, each loaded once."""

import contextlib
import gzip
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from bestofn.engines.base import load_engine
from bestofn.engines.model_files import locate
from bestofn.engines.transformers import TransformersEngine

ALPACA = Path(__file__).parents[2] / "shared" / "data" / "alpaca_eval_pools.jsonl.gz"


@pytest.fixture(scope="session")
def tiny() -> Iterator[TransformersEngine]:
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def alpaca_rows() -> list[dict[str, Any]]:
    """300 real prompts with 16 real responses each."""
    if not ALPACA.is_file():
        pytest.skip(f"real AlpacaEval responses are not at {ALPACA.name} beside the project")
    with gzip.open(ALPACA, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


VLLM_START = 300.0  # seconds; about 60 where nothing else runs


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server of the embedded model, without /v1."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("BESTOFN_REQUIRE_VLLM") == "1":
            pytest.fail("vllm is not installed, but BESTOFN_REQUIRE_VLLM=1 asks for its tests")
        pytest.skip("vllm is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("wb") as output:
        # A group of its own, as the server starts further processes.
        server = subprocess.Popen(
            vllm_command(port),
            env=vllm_environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for_health(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_group(server)


def vllm_command(port: int) -> list[str]:
    options = {
        "--model": locate("tiny"),
        "--served-model-name": "tiny",
        "--dtype": "float32",
        "--max-model-len": "512",
        "--block-size": "32",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    # vLLM 0.32 on the CPU dies of a seeded request whose prompt it computes in two parts.
    flags = ["--enforce-eager", "--enable-prompt-tokens-details", "--no-enable-chunked-prefill"]
    named = [part for option in options.items() for part in option]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *named, *flags]


def vllm_environment() -> dict[str, str]:
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return kept | own


def wait_for_health(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + VLLM_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the vLLM server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def stop_group(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
    # Whatever of the group is left, also where its first process is gone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
