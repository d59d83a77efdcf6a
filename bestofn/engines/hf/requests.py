"""What the engine's worker is asked for: one sequence to continue, or one to score."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bestofn.engines.base import SamplingParams
from bestofn.engines.hf.kv import block_keys
from bestofn.engines.hf.sampling import as_row
from bestofn.types import FinishReason, Usage


@dataclass(slots=True, eq=False)
class Request:
    """A sequence, and who waits for it.

    Attributes:
        ids: The tokens to compute.
        wanted: The first position whose logits are needed.
        prompt_tokens: Tokens of the prompt, for Usage.
        cached_tokens: Tokens that did not have to be computed for it; known once it ran.
    """

    ids: tuple[int, ...]
    wanted: int
    prompt_tokens: int
    cached_tokens: int = 0
    keys: list[int] = field(init=False)
    future: asyncio.Future[None] = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    created: float = field(init=False)

    def __post_init__(self) -> None:
        self.keys = block_keys(self.ids)
        self.loop = asyncio.get_running_loop()
        self.future = self.loop.create_future()
        self.created = time.perf_counter()

    def usage(self, **counts: int) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            seconds=time.perf_counter() - self.created,
            **counts,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class GenerateRequest(Request):
    """A prompt to continue."""

    params: SamplingParams
    seed: int
    limit: int
    """Tokens to generate at most, the context's limit included."""
    ends: frozenset[int]
    decode: Callable[[list[int]], str]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    row: tuple[float, ...] = field(init=False)
    """The parameters as the sampler reads them."""

    def __post_init__(self) -> None:
        Request.__post_init__(self)
        self.row = as_row(self.params)

    @property
    def final_length(self) -> int:
        """Tokens of prompt and response at most."""
        return len(self.ids) + self.limit

    def finished(self) -> bool:
        """Whether the token just appended is the last; sets `finish_reason`."""
        if self.tokens[-1] in self.ends or (self.params.stop and self._has_stop_string()):
            self.finish_reason = "stop"
            return True
        return len(self.tokens) >= self.limit

    def _has_stop_string(self) -> bool:
        # A token is at least one byte, so that many tokens hold any stop string that just ended.
        tail = max(len(stop.encode()) for stop in self.params.stop) + 4
        text = self.decode(self.tokens[-tail:])
        return any(stop in text for stop in self.params.stop)


@dataclass(slots=True, eq=False, kw_only=True)
class ScoreRequest(Request):
    """A continuation to score: its tokens' logits start at `wanted`."""

    continuation: tuple[int, ...]
    logprobs: list[float] = field(default_factory=list)
