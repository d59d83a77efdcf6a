"""A server's answer: its numbers, of which some leave parts out, and one that comes in pieces."""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

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


class Streamed:
    """An answer that arrives in pieces."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.entries: list[Mapping[str, Any]] = []
        self.prompt_tokens = 0  # as far as the server tells before the end
        self._message: dict[str, str] = {}
        self._lengths = [(0, 0)]  # after each piece: tokens, and characters of the answer
        self._reason: str | None = None
        self._usage: Mapping[str, Any] | None = None

    def add(self, piece: Mapping[str, Any]) -> None:
        """Takes the next piece in."""
        self._usage = piece.get("usage") or self._usage
        self.prompt_tokens = len(piece.get("prompt_token_ids") or ()) or self.prompt_tokens
        for choice in piece.get("choices") or ():
            for part, text in (choice.get("delta") or {}).items():
                if isinstance(text, str) and text:
                    self._message[part] = self._message.get(part, "") + text
            self.token_ids += choice.get("token_ids") or []
            self.entries += (choice.get("logprobs") or {}).get("content") or []
            self._reason = choice.get("finish_reason") or self._reason
        self._lengths.append((self.count, len(self._message.get("content", ""))))

    @property
    def count(self) -> int:
        """Tokens so far, as far as the server names them."""
        return len(self.token_ids) or len(self.entries)

    @property
    def ended(self) -> bool:
        return self._reason is not None

    @property
    def names_tokens(self) -> bool:
        """Whether it came in pieces, and its text with its tokens."""
        return len(self._lengths) > 1 and bool(self.count or not self._message.get("content"))

    def begun(self, tokens: int) -> dict[str, str]:
        """The message of the first so many tokens, of a server that names their texts alone.

        Where reasoning comes apart it is the message of the pieces with no more than these.
        """
        apart = {part: text for part, text in self._message.items() if part in REASONING}
        if apart:
            length = max(length for count, length in self._lengths if count <= tokens)
            return apart | {"content": self._message.get("content", "")[:length]}
        entries = self.entries[:tokens]
        parts = [bytes(e.get("bytes") or str(e.get("token", "")).encode()) for e in entries]
        return {"content": b"".join(parts).decode("utf-8", "replace")}

    def choice(self, tokens: int | None = None) -> dict[str, Any]:
        """What a whole answer has for a choice, of all or the first so many tokens."""
        return {
            "message": self._message,
            "finish_reason": self._reason,
            "token_ids": self.token_ids[:tokens],
            "logprobs": {"content": self.entries[:tokens]},
        }

    def answer(self) -> dict[str, Any]:
        """The answer as it would be whole."""
        return {
            "choices": [self.choice()],
            "usage": self._usage or {"completion_tokens": self.count},
        }
