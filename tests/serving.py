"""A vLLM server, of the embedded model unless told otherwise, in a process of its own."""

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError, EngineError

START = 300.0  # seconds; about 60 where nothing else runs


@contextlib.contextmanager
def serve(
    log: Path, model: str = "tiny", *, dtype: str = "float32", context: int = 512, cache: int = 1
) -> Iterator[str]:
    """Starts the server and yields its URL, without /v1; whatever it started ends with it.

    `model` is a folder, or the embedded model; it is served as "tiny" or by the folder's name.
    `cache` is in GiB.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": locate(model),
        "--served-model-name": Path(model).name,
        "--dtype": dtype,
        "--max-model-len": str(context),
        "--block-size": "32",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    # vLLM 0.32 on the CPU dies of a seeded request whose prompt it computes in two parts.
    flags = ["--enforce-eager", "--enable-prompt-tokens-details", "--no-enable-chunked-prefill"]
    named = [part for option in options.items() for part in option]
    own = {"VLLM_CPU_KVCACHE_SPACE": str(cache), "VLLM_LOGGING_LEVEL": "ERROR"}
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    with log.open("wb") as output:
        # A group of its own, as the server starts further processes.
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *named, *flags],
            env=kept | own,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for_health(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=20)
        # Whatever of the group is left, also where its first process is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for_health(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"the vLLM server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def require_vllm() -> None:
    """Skips where vLLM is not installed; continuous integration says that it must be."""
    try:
        importlib.import_module("bestofn.engines.vllm")
    except (ConfigError, EngineError) as error:
        reason = str(error)
        if os.environ.get("BESTOFN_REQUIRE_VLLM"):
            pytest.fail(reason)
        pytest.skip(reason)
