"""What many tests share: the embedded model, and a vLLM server of it, each loaded once."""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from serving import require_vllm, serve

from bestofn.engines.base import load_engine
from bestofn.engines.hf import TransformersEngine

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Tests run two at a time: an engine that computes on all cores would slow the others down.
os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")

ALPACA = Path(__file__).parents[2] / "shared" / "data" / "alpaca_eval_pools.jsonl.gz"


@pytest.fixture
def sigint() -> Iterator[None]:
    """SIGINT interrupts this process and those it starts, even where a script runs the tests in
    the background, so that they were started with the signal ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def tiny() -> Iterator[TransformersEngine]:
    engine = load_engine("tiny")
    assert isinstance(engine, TransformersEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def vllm_tiny() -> Iterator[Any]:
    """The embedded model on vLLM."""
    require_vllm()
    # So small a model can write white space in JSON without end.
    compact = {"backend": "xgrammar", "disable_any_whitespace": True}
    engine = load_engine(
        "vllm:tiny",
        kv_cache_memory_bytes=1 << 28,
        enforce_eager=True,
        enable_lora=True,
        structured_outputs_config=compact,
    )
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The folder of SmolLM2-135M-Instruct, which `recipes/smollm2/fetch.py` puts there."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "bestofn" / "SmolLM2-135M-Instruct"
    if not (folder / "model.safetensors").is_file():
        reason = "SmolLM2 is not on this machine; python recipes/smollm2/fetch.py fetches it"
        if os.environ.get("BESTOFN_REQUIRE_REAL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(folder)


@pytest.fixture(scope="session")
def alpaca_rows() -> list[dict[str, Any]]:
    """300 real prompts with 16 real responses each."""
    if not ALPACA.is_file():
        pytest.skip(f"real AlpacaEval responses are not at {ALPACA.name} beside the project")
    with gzip.open(ALPACA, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server of the embedded model, without /v1."""
    require_vllm()
    with serve(tmp_path_factory.mktemp("vllm") / "server.log") as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser that pages are opened in."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = None
    if found is None:
        reason = "the page is tested in Chromium, driven by playwright; one of them is missing"
        if os.environ.get("BESTOFN_REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
