"""What differs between releases of vLLM (0.25 to 0.33), its platforms and its model runners."""

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import vllm.exceptions
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.metrics.stats import IterationStats, RequestStateStats

REFUSALS = (
    VLLMValidationError,
    ValueError,
    *(
        getattr(vllm.exceptions, name)
        for name in ("VLLMClientError", "VLLMNotFoundError", "GracefulHTTPError")
        if hasattr(vllm.exceptions, name)
    ),
)
"""Raised for one request that vLLM does not take; the engine goes on."""

FIELDS = frozenset(SamplingParams.__struct_fields__)
"""Names of the sampling options that this release has."""


# Linear layers by their names in most architectures; all but the output layer.
ADAPTED = (
    "q_proj k_proj v_proj o_proj qkv_proj gate_proj up_proj gate_up_proj down_proj "
    "c_attn c_proj c_fc query_key_value dense fc1 fc2 out_proj"
).split()


def engine_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments that a user would have to know of, beside those that were given."""
    # Earlier prompts of a run go first.
    defaults: dict[str, Any] = {"enable_prefix_caching": True, "scheduling_policy": "priority"}
    if given.get("enable_lora"):
        defaults["lora_target_modules"] = ADAPTED
    if current_platform.is_cpu():
        # bfloat16 is slow where the CPU has no instructions for it; 32 is the finest grain of the
        # prefix cache that attention on a CPU takes, its default is 128.
        defaults |= {"dtype": "float32", "block_size": 32}
        # See `dies_of_seeds`.
        defaults["enable_chunked_prefill"] = False
    return defaults


def generation_params(
    logprobs: bool, detokenize: bool, schema: Any, **options: Any
) -> SamplingParams:
    """Parameters of one generated candidate.

    Args:
        logprobs: Whether to return the raw log-probabilities of its tokens.
        detokenize: Whether vLLM makes the text, as stop strings need.
        schema: A JSON schema to hold the output to, None for free text.
        options: Fields of `SamplingParams`.
    """
    guided = {} if schema is None else {"structured_outputs": StructuredOutputsParams(json=schema)}
    return SamplingParams(
        **guided,
        **options,
        logprobs=0 if logprobs else None,
        flat_logprobs=True,
        detokenize=detokenize,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def filling_params() -> SamplingParams:
    """Parameters of a request that is made for what it leaves in the prefix cache."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def scoring_params(
    prefix: int, continuation: tuple[int, ...], *, read_cache: bool, fixed_ids: bool
) -> SamplingParams:
    """Parameters of a request that scores the last tokens of its prompt.

    Args:
        prefix: Tokens before the continuation.
        continuation: The tokens to score.
        read_cache: vLLM's own default is not to, since its result has holes then.
        fixed_ids: Ask for these ids in these rows only, see `scores_fixed_ids`.
    """
    rows: dict[str, Any] = {"prompt_logprobs": 0, "flat_logprobs": True}
    if fixed_ids:
        ids = [[token] for token in continuation]
        rows = {"prompt_logprob_token_ids": ids, "prompt_logprob_start": prefix - 1}
    return SamplingParams(
        **rows,
        temperature=0.0,
        max_tokens=1,
        detokenize=False,
        skip_reading_prefix_cache=not read_cache,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def scores_fixed_ids(config: Any) -> bool:
    """Whether logits can be had for given rows alone: the V2 model runner from 0.32 on.

    The option of that name in 0.31 is another one, a list of ids for every row.

    Args:
        config: The engine's VllmConfig.
    """
    kind = str(SamplingParams.__annotations__.get("prompt_logprob_token_ids", ""))
    return "ndarray" in kind and bool(config.use_v2_model_runner)


def dies_of_seeds(config: Any) -> bool:
    """Whether a request with a seed can end the engine.

    On a CPU it does so when its prompt is computed in chunks: vLLM turns the request's random
    generator back between them, which PyTorch's CPU generator cannot do.
    """
    return current_platform.is_cpu() and bool(config.scheduler_config.enable_chunked_prefill)


def misplaces_logits(config: Any) -> bool:
    """Whether an adapter of the output layer stands in the way of log-probabilities of prompts.

    vLLM applies it by the rows of the batch, of which logits of a prompt are none: the engine
    process dies of it on a CPU.
    """
    lora = config.lora_config
    return lora is not None and (lora.target_modules is None or "lm_head" in lora.target_modules)


def tail(output: Any, count: int) -> tuple[list[int] | None, list[float]]:
    """Ids (None where they were fixed by the request) and log-probabilities of the last tokens.

    V1 returns one row for each prompt token, with stale memory where the cache was read. V2
    returns rows for computed tokens only, so that its list is shorter: rows count from the end.
    """
    fixed = getattr(output, "prompt_token_id_logprobs", None)
    if fixed is not None:
        return None, [float(row[0]) for row in fixed]
    flat = output.prompt_logprobs
    if flat is None:
        return [], []
    return list(flat.token_ids[-count:]), list(flat.logprobs[-count:])


def preemptions(output: Any) -> int | None:
    """How often the request lost its place in the engine; None if the engine keeps no statistics.

    After that the request may read from the cache what it had not computed, and the number of
    cached tokens that vLLM reports is the one of before.
    """
    metrics = output.metrics
    return None if metrics is None else getattr(metrics, "num_preemptions", 0)


def count_preemptions() -> None:
    """Lets releases before 0.31, which only count them for the engine, do so for a request."""
    if "num_preemptions" in {field.name for field in fields(RequestStateStats)}:
        return
    update = IterationStats.update_from_events
    if hasattr(update, "__wrapped__"):
        return

    @functools.wraps(update)
    def counting(
        self: Any, req_id: str, events: Any, is_prefilling: bool, req_stats: Any, *rest: Any
    ) -> None:
        update(self, req_id, events, is_prefilling, req_stats, *rest)
        lost = sum(event.type == EngineCoreEventType.PREEMPTED for event in events)
        req_stats.num_preemptions = getattr(req_stats, "num_preemptions", 0) + lost

    IterationStats.update_from_events = counting
