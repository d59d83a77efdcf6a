"""What servers answer, of which some leave parts out."""

import re
import warnings
from collections.abc import Mapping
from math import isfinite
from typing import Any

from bestofn.thinking import ANY, TAG, split_thinking
from bestofn.types import Usage

# What servers, OpenAI's and vLLM's alike, put where they have no finite log-probability.
NO_LOGPROB = -9999.0
# Servers that split off the reasoning name it in one of two ways.
REASONING = ("reasoning", "reasoning_content")


def token_logprobs(choice: Mapping[str, Any], tokens: int) -> list[float] | None:
    """Of all generated tokens, in nats; None if one of them is missing."""
    entries = (choice.get("logprobs") or {}).get("content") or []
    values = [entry.get("logprob") for entry in entries]
    complete = values and len(values) == (tokens or len(values)) and all(map(is_known, values))
    return values if complete else None


def is_known(logprob: Any) -> bool:
    return isinstance(logprob, int | float) and isfinite(logprob) and logprob > NO_LOGPROB


def usage_of(answer: Mapping[str, Any], tokens: int, seconds: float) -> Usage:
    counts = answer.get("usage") or {}
    details = counts.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=max(0, counts.get("prompt_tokens") or 0),
        cached_tokens=max(0, details.get("cached_tokens") or 0),
        generated_tokens=max(0, counts.get("completion_tokens") or tokens),
        seconds=seconds,
    )


# How servers say that a prompt is too long: OpenAI's, vLLM's, SGLang's.
CONTEXT_LIMIT = re.compile(r"context length(?: is| of)? \(?(\d+) tokens|context length of (\d+)")
LENGTH = re.compile(
    r"(\d+) (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)"
    r"|(?:resulted in|contains at least|contains|has) (\d+) (?:input )?tokens"
    r"|input \((\d+) tokens\)"
)


def stated_lengths(said: str) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the context, as a refusal states them."""
    lengths, limits = (
        [int(n) for found in pattern.findall(said) for n in found if n]
        for pattern in (LENGTH, CONTEXT_LIMIT)
    )
    return lengths, limits


# Other servers than vLLM's do not show their chat template.
UNSEEN_REASONING = (
    "an answer closes a thinking tag that it does not open, and counts as text from its beginning; "
    "if the model thinks, start the server with a reasoning parser, or switch the reasoning off"
)
CLOSING_LINE = re.compile(rf"^[ \t]*</{ANY}>[ \t]*$", re.IGNORECASE | re.MULTILINE)


def text_of(message: Mapping[str, Any]) -> str:
    """The content of an answer; of parts, some of which hold reasoning, that of the texts."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(p.get("text") or "") for p in content if p.get("type") == "text")
    return str(content)


def split_unseen(content: str) -> tuple[str | None, str]:
    """Reasoning and answer from a server that does not show how its model is asked."""
    alone = CLOSING_LINE.search(content)
    if alone and not TAG.search(content, 0, alone.start()):
        warnings.warn(UNSEEN_REASONING, stacklevel=2)
    return split_thinking(content)
