"""Answers that a server streams, looked at on the way."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from bestofn.engines.base import Completion, Watch
from bestofn.engines.openai.answers import REASONING
from bestofn.engines.openai.server import Server
from bestofn.errors import ConfigError, EngineError

FIELDS = {"stream": True, "stream_options": {"include_usage": True}}
"""Of a request whose answer is to be streamed."""


async def follow(
    server: Server,
    watch: Watch,
    begun: Callable[["Streamed", int], Awaitable[Completion]],
    path: str,
    request: Mapping[str, Any],
) -> dict[str, Any]:
    """A streamed answer as a whole one; a count is seen once the token behind it has come.

    Args:
        server: Is asked.
        watch: Is shown the first tokens.
        begun: The completion of the first so many.
        path: Of the request.
        request: With `FIELDS`.

    Raises:
        ConfigError: the server does not stream, or names neither tokens nor log-probabilities.
        EngineError: the stream ends before the answer.
    """
    streamed = Streamed()
    async with aclosing(server.stream(path, request)) as pieces:
        async for piece in pieces:
            before = watch.generated
            streamed.add(piece)
            watch.generated = streamed.count
            for at in watch.at:
                if before <= at < streamed.count:
                    watch.reached(at, await begun(streamed, at))
    if not streamed.names_tokens:
        raise ConfigError(
            f"the server at {server.url} does not stream answers with their tokens or "
            "log-probabilities, without which unfinished responses cannot be scored"
        )
    if not streamed.ended:
        raise EngineError(f"the server at {server.url} ended a stream before its answer")
    return streamed.answer()


class Streamed:
    """An answer that arrives in pieces."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.entries: list[Mapping[str, Any]] = []
        self.prompt_tokens = 0  # as far as the server tells before the end
        self._message: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}
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
            for call in (choice.get("delta") or {}).get("tool_calls") or ():
                self._add_call(call)
            self.token_ids += choice.get("token_ids") or []
            self.entries += (choice.get("logprobs") or {}).get("content") or []
            self._reason = choice.get("finish_reason") or self._reason
        self._lengths.append((self.count, len(self._message.get("content", ""))))

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        """Takes a piece of a call in; its name and arguments may come bit by bit."""
        place = len(self._calls) if piece.get("index") is None else piece["index"]
        call = self._calls.setdefault(place, {"function": {}})
        self._message["tool_calls"] = list(self._calls.values())
        call["id"] = piece.get("id") or call.get("id")
        for part, text in (piece.get("function") or {}).items():
            more = text if isinstance(text, str) else json.dumps(text) if text else ""
            call["function"][part] = call["function"].get(part, "") + more

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
