"""What differs between releases of vLLM (0.25 to 0.33), its platforms and its model runners."""

import functools
import math
from typing import Any

from vllm import SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.metrics.stats import IterationStats, RequestStateStats

from bestofn.types import Usage

NAMED_LOGPROBS = "logprob_token_ids" in SamplingParams.__struct_fields__
"""Whether log-probabilities of named tokens can be had, not just of the likeliest ones."""


def params(**options: Any) -> SamplingParams:
    """vLLM's parameters of a request, whose text and unfinished outputs nobody reads."""
    own = {"detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY, "skip_clone": True}
    return SamplingParams(**own | options)


def scoring_params(
    prefix: int, continuation: tuple[int, ...], *, read_cache: bool, fixed_ids: bool
) -> SamplingParams:
    """Parameters of a request that scores the continuation behind so many tokens of a prefix.

    vLLM's own default is not to read the cache, since its result has holes then. With `fixed_ids`
    these ids are asked for in these rows only, see `scores_fixed_ids`.
    """
    rows: dict[str, Any] = {"prompt_logprobs": 0, "flat_logprobs": True}
    if fixed_ids:
        ids = [[token] for token in continuation]
        rows = {"prompt_logprob_token_ids": ids, "prompt_logprob_start": prefix - 1}
    return params(temperature=0.0, max_tokens=1, skip_reading_prefix_cache=not read_cache, **rows)


def scores_fixed_ids(config: Any) -> bool:
    """Whether logits can be had for given rows alone: the V2 model runner from 0.32 on.

    The option of that name in 0.31 is another one, a list of ids for every row.
    """
    kind = str(SamplingParams.__annotations__.get("prompt_logprob_token_ids", ""))
    return "ndarray" in kind and bool(config.use_v2_model_runner)


def read_scores(
    output: Any, prefix: int, ids: tuple[int, ...], *, cache_was_read: bool = True
) -> list[float] | None:
    """The continuation's log-probabilities in a finished scoring request; None on any doubt.

    What was read from the prefix cache has no logits. vLLM returns the rest without a mark where
    it begins, so the values count only if the cache ended before the first scored position, if the
    request never lost its place in the engine, and if rows, token ids and values are as expected.

    V1 returns one row for each prompt token, with stale memory where the cache was read. V2
    returns rows for computed tokens only, so that its list is shorter: rows count from the end.
    """
    # The logits of position prefix - 1 predict the first scored token.
    if output.num_cached_tokens is None or output.num_cached_tokens > prefix - 1:
        return None
    # A request that lost its place may have read what it had not computed; one that computes
    # everything does so again.
    if cache_was_read and (output.metrics is None or output.metrics.num_preemptions):
        return None
    fixed, flat = getattr(output, "prompt_token_id_logprobs", None), output.prompt_logprobs
    if fixed is not None:
        found, logprobs = list(ids), [float(row[0]) for row in fixed]
    elif flat is not None:
        found, logprobs = list(flat.token_ids[-len(ids) :]), list(flat.logprobs[-len(ids) :])
    else:
        return None
    right = found == list(ids) and len(logprobs) == len(ids) and all(map(math.isfinite, logprobs))
    return logprobs if right else None


def read_logprobs(completion: Any, first: int | None) -> list[float]:
    """The log-probabilities of the first sampled tokens, of all with None."""
    flat = completion.logprobs
    # The sampled token comes first at its position.
    return [flat.logprobs[start] for start in flat.start_indices[:first]]


def read_confidences(
    completion: Any, tokens: int | str | None, first: int | None
) -> list[float] | None:
    """See `Completion.token_confidences`; of the first tokens, of all with None."""
    if tokens is None:
        return None
    flat = completion.logprobs
    spans = zip(flat.start_indices[:first], flat.end_indices[:first], strict=True)
    # Behind the sampled token come the likeliest, which it may be one of.
    return [
        -math.fsum(flat.logprobs[a + 1 : b]) / (b - a - 1) - math.log(b - a - 1) for a, b in spans
    ]


def count_preemptions() -> None:
    """Lets releases before 0.31, which only count them for the engine, do so for each request."""
    if hasattr(RequestStateStats, "num_preemptions"):
        return
    RequestStateStats.num_preemptions = 0
    update = IterationStats.update_from_events

    @functools.wraps(update)
    def counting(
        self: Any, req_id: str, events: Any, prefilling: bool, stats: Any, *rest: Any
    ) -> None:
        update(self, req_id, events, prefilling, stats, *rest)
        stats.num_preemptions += sum(
            event.type == EngineCoreEventType.PREEMPTED for event in events
        )

    IterationStats.update_from_events = counting


def dies_of_seeds(config: Any) -> bool:
    """Whether a request with a seed can end the engine: on a CPU, with prompts in chunks.

    Between them vLLM turns the request's random generator back, which a CPU's cannot do.
    """
    return current_platform.is_cpu() and bool(config.scheduler_config.enable_chunked_prefill)


def scoring_usage(outputs: list[Any], prefix: int, count: int) -> Usage:
    """What one log-likelihood cost, from the engine's figures for each of its requests."""
    cached = [output.num_cached_tokens or 0 for output in outputs]
    computed = sum(len(output.prompt_token_ids) for output in outputs) - sum(cached)
    reused = min(cached[0], prefix)
    return Usage(
        prompt_tokens=prefix,
        cached_tokens=reused,
        scored_tokens=count,
        repeated_tokens=max(0, computed - (prefix - reused + count)),
    )
