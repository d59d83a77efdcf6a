"""The arguments that vLLM is loaded with: the user's, and defaults that suit this library."""

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any

import psutil  # a requirement of vLLM
from vllm import AsyncEngineArgs
from vllm.platforms import current_platform

from bestofn.engines.model_files import first_sentence
from bestofn.errors import ConfigError

# Linear layers by their names in most architectures; all but the output layer.
ADAPTED = (
    "q_proj k_proj v_proj o_proj qkv_proj gate_proj up_proj gate_up_proj down_proj "
    "c_attn c_proj c_fc query_key_value dense fc1 fc2 out_proj"
).split()


# Arguments that say how a model is compiled.
COMPILING = {"enforce_eager", "compilation_config", "optimization_level", "cudagraph_capture_sizes"}


def checked_args(folder: str, given: Mapping[str, Any]) -> AsyncEngineArgs:
    """vLLM's arguments: those that were given, and the defaults of this library."""
    known = set(inspect.signature(AsyncEngineArgs).parameters)
    if unknown := sorted(set(given) - known):
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"vLLM has no engine argument {', '.join(unknown)}{hint}")
    args = engine_defaults(given) | dict(given)
    # Without its statistics a request that lost its place could not be told from the others; and
    # in another mode what comes out are no log-probabilities of the model.
    fixed = {"disable_log_stats": False, "logprobs_mode": "raw_logprobs"}
    changed = [name for name, value in fixed.items() if given.get(name, value) != value]
    if changed:
        raise ConfigError(f"{changed[0]} has to stay {fixed[changed[0]]!r}, which scores rely on")
    try:
        return AsyncEngineArgs(model=folder, **args | fixed)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"vLLM refuses an engine argument: {first_sentence(error)}") from error


def tokenizer_args(args: AsyncEngineArgs) -> dict[str, Any]:
    """Those of vLLM's arguments that the model's tokenizer is loaded with."""
    revision = args.tokenizer_revision or args.revision
    trust, token = args.trust_remote_code, args.hf_token
    return {"revision": revision, "trust_remote_code": trust, "token": token}


def engine_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """What suits this library, where the arguments that were given leave it open."""
    # Earlier prompts of a run go first.
    defaults: dict[str, Any] = {"enable_prefix_caching": True, "scheduling_policy": "priority"}
    if given.get("enable_lora"):
        defaults["lora_target_modules"] = ADAPTED
    if current_platform.is_cpu():
        # bfloat16 is slow where the CPU has no instructions for it; 32 is the finest grain of the
        # prefix cache that attention on a CPU takes; with a seed vLLM dies of prompts in chunks;
        # more sequences at once are no faster, and finish only at the end of a run; to compile the
        # model takes longer than most runs, and hardly makes it faster.
        defaults |= {"dtype": "float32", "block_size": 32, "enable_chunked_prefill": False}
        defaults["max_num_seqs"] = 48
        if not given.keys() & COMPILING:
            defaults["enforce_eager"] = True
        # By itself vLLM wants nearly all of the machine's memory, and refuses to start without.
        own = given.keys() & {"gpu_memory_utilization", "kv_cache_memory_bytes"}
        left_open = not own and "VLLM_CPU_KVCACHE_SPACE" not in os.environ
        if left_open and (cache := _free_memory() // 2):
            defaults["kv_cache_memory_bytes"] = cache
    return defaults


def _free_memory() -> int:
    """Bytes that vLLM's worker can have on a CPU: those of its node, or of its container."""
    free = int(psutil.virtual_memory().available)
    try:
        from vllm.utils import cpu_resource_utils as found

        node = found.get_allowed_cpu_list()[0].numa_node
        return min(free, int(found.get_memory_node_info(node).available_memory))
    except (ImportError, AttributeError, LookupError, OSError, ValueError):
        return free  # another release, or another system
