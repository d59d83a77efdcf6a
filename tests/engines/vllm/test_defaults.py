"""The arguments of vLLM on a CPU that the user leaves open."""

import importlib
import os
from typing import Any

import psutil
import pytest
from serving import require_vllm

require_vllm()

import bestofn.engines.vllm  # noqa: E402
from bestofn.engines.vllm import arguments  # noqa: E402

GIB = 1 << 30
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"


@pytest.mark.parametrize(
    ("cores", "own", "reserved"), [(2, None, "0"), (4, None, "0"), (5, None, None), (2, "1", "1")]
)
def test_few_cores_all_compute(
    cores: int, own: str | None, reserved: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv(RESERVED, own or "")
    if own is None:
        monkeypatch.delenv(RESERVED)
    importlib.reload(bestofn.engines.vllm)
    assert os.environ.get(RESERVED) == reserved


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if not arguments.current_platform.is_cpu():
        pytest.skip("vLLM has a GPU")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("machine", "node", "cache"),
    [
        (24, 24, 12),
        (24, 8, 4),
        (6, 8, 3),
        (24, FileNotFoundError("meminfo"), 12),
        (24, AttributeError("another release"), 12),
    ],
)
def test_the_cache_takes_half_of_what_is_free_where_the_worker_runs(
    machine: int, node: int | Exception, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pytest.importorskip("vllm.utils.cpu_resource_utils")

    def info(number: int) -> Any:
        assert number == 1
        if isinstance(node, Exception):
            raise node
        return found.MemoryNodeInfo(32 * GIB, node * GIB)

    free = psutil.virtual_memory()._replace(available=machine * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    cpus = [found.LogicalCPUInfo(3, 3, 1), found.LogicalCPUInfo(4, 4, 0)]
    monkeypatch.setattr(found, "get_allowed_cpu_list", lambda: cpus)
    monkeypatch.setattr(found, "get_memory_node_info", info)
    assert arguments.engine_defaults({})["kv_cache_memory_bytes"] == cache * GIB
    assert "kv_cache_memory_bytes" not in arguments.engine_defaults({"gpu_memory_utilization": 0.5})


@pytest.mark.usefixtures("on_cpu")
def test_a_model_is_compiled_on_request() -> None:
    assert arguments.checked_args("model", {}).enforce_eager
    assert not arguments.checked_args("model", {"enforce_eager": False}).enforce_eager
    assert not arguments.checked_args("model", {"compilation_config": {"mode": 1}}).enforce_eager
