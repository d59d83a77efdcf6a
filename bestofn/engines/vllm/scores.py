"""What is read from vLLM's scoring requests: log-probabilities, or a doubt, and what they cost."""

import math
from typing import Any

from bestofn.engines.vllm import versions
from bestofn.types import Usage


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


def read_scores(
    output: Any, prefix: int, ids: tuple[int, ...], *, cache_was_read: bool = True
) -> list[float] | None:
    """The continuation's log-probabilities in a finished scoring request; None on any doubt.

    What was read from the prefix cache has no logits. vLLM returns the rest without a mark where
    it begins, so the values count only if the cache ended before the first scored position, if the
    request never lost its place in the engine, and if rows, token ids and values are as expected.

    Args:
        output: vLLM's RequestOutput.
        prefix: Tokens before the continuation.
        ids: The continuation's tokens.
        cache_was_read: Whether the request was allowed to read from the cache.
    """
    cached, lost = output.num_cached_tokens, versions.preemptions(output)
    # The logits of position prefix - 1 predict the first scored token.
    if cached is None or cached > prefix - 1:
        return None
    # A request that computes everything does so again when it gets its place back.
    if cache_was_read and lost != 0:
        return None
    found, logprobs = versions.tail(output, len(ids))
    if len(logprobs) != len(ids) or (found is not None and found != list(ids)):
        return None
    return logprobs if all(math.isfinite(value) for value in logprobs) else None
