"""What a model's results depend on, told from how it is loaded, before and after it is."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bestofn.engines.model_files import default_template, json_of, locate
from bestofn.errors import EngineError
from bestofn.identity import UNKNOWN, files_fingerprint, place_of
from bestofn.redaction import without_secrets

# Arguments of engines that change how fast, where and with how much memory, but no result. All
# that is not here counts.
IDLE = re.compile(
    r"name|device|device_map|max_rows|wave_tokens|kv_cache_gib|low_cpu_mem_usage|max_memory|"
    r"offload_.*|cache_dir|download_dir|local_files_only|force_download|use_safetensors|batch_size|"
    r"gpu_memory_utilization|kv_cache_memory.*|kv_offloading_.*|num_gpu_blocks_override|swap_space|"
    r"cpu_offload_.*|block_size|max_num_.*|max_parallel_loading_workers|(tensor|pipeline|data|"
    r"expert|decode_context|prefill_context)_parallel_.*|enable_expert_parallel|"
    r"disable_custom_all_reduce|distributed_executor_backend|distributed_timeout.*|master_.*|nnodes|"
    r"node_rank|worker_.*|ray_workers.*|enable_prefix_caching|prefix_caching_.*|"
    r"enable_chunked_prefill|long_prefill_.*|scheduling_policy|async_scheduling|scheduler_.*|"
    r"enforce_eager|compilation_config|cudagraph_.*|enable_lora|max_loras|max_lora_rank|"
    r"max_cpu_loras|fully_sharded_loras|disable_log_.*|enable_log_.*|log_.*|show_.*|.*_trace.*|"
    r"stream_interval|max_retries|.*timeout.*|.*concurrency.*|.*retries.*|.*backoff.*"
)
USUAL = {"dtype": "auto", "template": "reasoned", "revision": "main"}  # as if left out
LOCAL = ("hf", "vllm")
PATHS = ("tokenizer", "hf_config_path", "generation_config", "lora", "chat_template")

LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
PORTS = {"http": 80, "https": 443}

# What of a model's folder is loaded; a folder of a training run holds more.
_LOADED = re.compile(
    r"(?!(optimizer|scheduler|rng_state|trainer_state|training_args))"
    r".*\.(json|jinja|model|safetensors|bin|pt|pth|gguf|py|tiktoken)|(vocab|merges)\.txt"
)


@dataclass(frozen=True, slots=True)
class Described:
    """An engine as its configuration describes it, with nothing loaded.

    Attributes:
        spec: What `load_engine` takes.
        args: Its arguments.
        view: Options of a view on it.
    """

    spec: str
    args: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default_template(self) -> str:
        """The backward template that the loaded engine will name, unknown for a kind not ours."""
        kind, model, _ = _parts(self.spec)
        if kind == "openai":
            return str(self.args.get("template", USUAL["template"]))
        folder = _folder(model)
        config = json_of(folder, "config.json", self.args) if kind in LOCAL else None
        return UNKNOWN if config is None else default_template(folder, config)

    def identity(self) -> dict[str, Any]:
        """What results depend on; what only the loaded engine knows is unknown."""
        kind, model, name = _parts(self.spec)
        found = {"kind": kind, "model": model}
        if kind == "openai":
            found = {"kind": kind, "url": model, "model": name or UNKNOWN}
        elif kind in LOCAL:
            found["weights"] = weights_of(model, self.args)
        return found | mattering(self.args) | mattering(self.view)


def _parts(spec: str) -> tuple[str, str, str]:
    """Kind, model or URL in one spelling, and a server's model."""
    kind, _, model = ("hf", ":", "tiny") if spec == "tiny" else spec.partition(":")
    if kind == "openai":
        url, _, name = model.partition("#")
        return kind, same_url(url), name
    if kind in LOCAL:
        place = place_of(_folder(model))
        model = "tiny" if place == place_of(_folder("tiny")) else place_of(model)
    return kind, model, ""


def _folder(model: str) -> str:
    try:
        return locate(model)
    except EngineError:
        return model


def same_engine(spec: str) -> str:
    """One spelling of an engine's spec."""
    kind, model, name = _parts(spec)
    known = model and kind in ("openai", *LOCAL)
    return f"{kind}:{model}{'#' if name else ''}{name}" if known else spec


def same_url(url: str) -> str:
    """One spelling of a server's URL, without what it may hold of a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url
    if not host:
        return url
    place = "localhost" if host in LOOPBACK else f"[{host}]" if ":" in host else host
    shown = "" if port in (None, PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{place}{shown}{parts.path.rstrip('/')}"


def mattering(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an engine, or options of a view, that change results; no secrets."""
    found = {}
    for name, value in without_secrets(args).items():
        idle = IDLE.fullmatch(name) or (name == "guided" and not value)
        if idle or value in (None, {}, USUAL.get(name)):
            continue
        is_path = name in PATHS and isinstance(value, str) and Path(value).expanduser().exists()
        found[name] = weights_of(value, {}) if is_path else value
    return found


def weights_of(model: str, args: Mapping[str, Any]) -> str:
    """A fingerprint of a model's files, or its commit on the hub; unknown before it is loaded."""
    place = Path(_folder(model)).expanduser()
    try:
        if place.is_file():
            return files_fingerprint([place])
        if place.is_dir():
            inner = [*place.iterdir(), *place.glob("*/*.jinja")]
            return files_fingerprint(p for p in inner if p.is_file() and _LOADED.match(p.name))
    except OSError:
        return UNKNOWN
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    cache, revision = args.get("cache_dir") or args.get("download_dir"), args.get("revision")
    for name in ("config.json", "adapter_config.json"):
        with suppress(HFValidationError, OSError):
            found = try_to_load_from_cache(model, name, cache, revision)
            if isinstance(found, str):
                return f"commit:{Path(found).parent.name}"
    return UNKNOWN
