"""Which requests are computed together, and what becomes of their logits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from bestofn.engines.base import SamplingParams
from bestofn.engines.hf.batch import BLOCK, Batch, Block, PrefixCache, cached_rows
from bestofn.engines.hf.model import Request, Worker
from bestofn.engines.hf.sampling import sample, uniforms
from bestofn.types import FinishReason, Usage

PATIENCE = 6  # decoding steps that a request waits for company
CACHE_SHARE = 0.25  # of the memory for keys and values, for prefixes


@dataclass(slots=True, eq=False, kw_only=True)
class TextRequest(Request):
    """A sequence whose first `prompt_tokens` are a prompt.

    Attributes:
        tail: Last positions whose logits are needed.
        cached_tokens: Prompt tokens that were not computed for it; known once it ran.
        logprobs: Of the tokens generated or scored.
    """

    prompt_tokens: int
    tail: int = 1
    cached_tokens: int = 0
    logprobs: list[float] = field(default_factory=list)

    def usage(self, **counts: int) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            seconds=self.seconds,
            **counts,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class ScoreRequest(TextRequest):
    """A prompt and its continuation, whose last token is predicted but not read."""

    continuation: tuple[int, ...]

    def read(self, logits: torch.Tensor) -> None:
        """Takes the continuation's log-probabilities from `[positions, vocabulary]`."""
        targets = torch.tensor(self.continuation, device=logits.device)[:, None]
        self.logprobs = logits[-self.tail :].log_softmax(-1).gather(1, targets)[:, 0].tolist()


@dataclass(slots=True, eq=False, kw_only=True)
class GenerateRequest(TextRequest):
    """A prompt to continue by `limit` tokens at most."""

    params: SamplingParams
    seed: int
    limit: int
    ends: frozenset[int]
    decode: Callable[[list[int]], str]
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "length"

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


@dataclass(slots=True)
class Group:
    """Requests for the same computation, which runs once.

    Attributes:
        blocks: What is cached of `ids`.
    """

    ids: tuple[int, ...]
    tail: int
    blocks: list[Block]
    requests: list[TextRequest] = field(default_factory=list)

    @property
    def new(self) -> int:
        return len(self.ids) - len(self.blocks) * BLOCK


class Scheduler(Worker[TextRequest]):
    """Prefills requests in waves and decodes one padded batch, which they join and leave.

    Args:
        model: The model.
        max_rows: Sequences decoded at once at most.
        wave_tokens: New tokens of one prefill forward pass, unless one sequence alone has more.
        kv_tokens: Tokens whose keys and values fit into the memory set aside for them.
    """

    def __init__(
        self, model: PreTrainedModel, max_rows: int, wave_tokens: int, kv_tokens: int
    ) -> None:
        remedy = "load the engine with a smaller max_rows, wave_tokens or kv_cache_gib"
        super().__init__(model, "the engine", remedy)
        self.max_rows = max_rows
        self.wave_tokens = wave_tokens
        self.prefixes = PrefixCache(int(kv_tokens * CACHE_SHARE))
        self.kv_tokens = kv_tokens - self.prefixes.capacity
        self.reset()

    def reset(self) -> None:
        self.running: list[GenerateRequest] = []  # one for each row of the batch
        self.batch = Batch(DynamicCache(), torch.zeros(0, dtype=torch.int64))
        self._waited = 0  # decoding steps since a request has been waiting

    def turn(self) -> None:
        self._drop_done()
        if not self.running or self._waited >= PATIENCE:
            while groups := self._plan():
                for wave in self._waves(groups):
                    self._run_wave(wave)
            self._waited = 0
            self._drop_done()
        if self.running:
            self._decode()
            self._waited += bool(self.waiting)

    def _drop_done(self) -> None:
        """Takes requests that are finished or cancelled out of the batch."""
        rows = [row for row, request in enumerate(self.running) if not request.future.done()]
        if not rows:
            self.reset()
        elif len(rows) < len(self.running):
            self.running = [self.running[row] for row in rows]
            self.batch.select(rows)

    def _plan(self) -> list[Group]:
        """Takes from the waiting requests what can run now, equal ones together.

        A request that shares a block with another that is about to compute it waits for that one,
        so that the block is computed once. A request to generate waits for a free row.
        """
        groups: dict[tuple[tuple[int, ...], int], Group] = {}
        computing: set[tuple[int, ...]] = set()
        left: list[TextRequest] = []
        lengths = [request.final_length for request in self.running]
        for request in self.waiting:
            final = [request.final_length] if isinstance(request, GenerateRequest) else []
            if final and not self._has_room(lengths + final):
                left.append(request)
                continue
            key = request.ids, request.tail
            if key not in groups:
                blocks = self.prefixes.match(request.ids[: -request.tail])
                first = request.ids[: (len(blocks) + 1) * BLOCK]
                if first in computing:
                    left.append(request)
                    continue
                if len(first) <= request.prompt_tokens:
                    computing.add(first)
                groups[key] = Group(*key, blocks)
            groups[key].requests.append(request)
            lengths += final
        self.waiting = left
        return list(groups.values())

    def _has_room(self, lengths: list[int]) -> bool:
        """Whether rows of these lengths can be decoded together; one alone always can."""
        rows = len(lengths)
        return rows == 1 or (rows <= self.max_rows and rows * max(lengths) <= self.kv_tokens)

    def _waves(self, groups: list[Group]) -> Iterator[list[Group]]:
        """Groups that lack about as many tokens, within the limits of a forward pass."""
        wave: list[Group] = []
        for group in sorted(groups, key=lambda group: group.new):
            rows, longest = len(wave) + 1, max(len(g.ids) for g in [*wave, group])
            if wave and (
                rows * group.new > self.wave_tokens
                or rows * longest > 4 * self.wave_tokens
                or group.new > 16 + 1.5 * wave[0].new
            ):
                yield wave
                wave = []
            wave.append(group)
        yield wave

    def _run_wave(self, wave: Sequence[Group]) -> None:
        starting: list[tuple[int, GenerateRequest]] = []
        last: list[torch.Tensor] = []
        # Nothing in here touches what is being decoded.
        with self.failing([request for group in wave for request in group.requests]):
            batch, logits = self._prefill(wave)
            for row, group in enumerate(wave):
                for request in group.requests:
                    if isinstance(request, GenerateRequest):
                        starting.append((row, request))
                        last.append(logits[row][-1])
                    elif isinstance(request, ScoreRequest):
                        request.read(logits[row])
                        self.settle([request])
        if starting:
            self._start(batch, starting, torch.stack(last))

    def _prefill(self, wave: Sequence[Group]) -> tuple[Batch, tuple[torch.Tensor, ...]]:
        """Computes new sequences behind their cached prefixes.

        Returns:
            The sequences, and the last logits of each, float32 `[tail, vocabulary]`.
        """
        batch = cached_rows([group.blocks for group in wave])
        ids = torch.zeros(len(wave), max(group.new for group in wave), dtype=torch.int64)
        rows: list[int] = []
        columns: list[int] = []
        for row, group in enumerate(wave):
            ids[row, : group.new] = torch.tensor(group.ids[-group.new :])
            rows += [row] * group.tail
            columns += range(group.new - group.tail, group.new)
        new = torch.tensor([group.new for group in wave])
        picked = torch.tensor(rows), torch.tensor(columns)
        logits = batch.forward(self.model, ids, new, picked)
        for row, group in enumerate(wave):
            # What follows the prompt is read by no other request.
            self.prefixes.insert(group.ids[: group.requests[0].prompt_tokens], batch.row(row))
            for number, request in enumerate(group.requests):
                # The first one computes for all.
                known = len(group.ids) if number else len(group.ids) - group.new
                request.cached_tokens = min(known, request.prompt_tokens)
        return batch, torch.split(logits, [group.tail for group in wave])

    def _start(
        self, batch: Batch, starting: list[tuple[int, GenerateRequest]], logits: torch.Tensor
    ) -> None:
        """Draws the first tokens of prefilled requests, which join the batch."""
        rows, requests = [row for row, _ in starting], [request for _, request in starting]
        self._draw(requests, logits)
        batch.select(rows)
        if self.running:
            self.batch.join(batch)
        else:
            self.batch = batch
        self.running += requests

    def _decode(self) -> None:
        """One token for each row."""
        ids = torch.tensor([[request.tokens[-1]] for request in self.running])
        rows = torch.arange(len(ids))
        logits = self.batch.forward(
            self.model, ids, torch.ones_like(rows), (rows, torch.zeros_like(rows))
        )
        self._draw(self.running, logits)

    def _draw(self, requests: Sequence[GenerateRequest], logits: torch.Tensor) -> None:
        """Appends a token to each request, and settles those for which it is the last."""
        seeds = np.array([request.seed for request in requests], np.uint64)
        steps = np.array([len(request.tokens) for request in requests], np.uint64)
        tokens = sample(
            logits,
            [request.params for request in requests],
            uniforms(seeds, steps),
            [chain(request.ids, request.tokens) for request in requests],
        )
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)
        for request, token, logprob in zip(
            requests, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            request.tokens.append(token)
            request.logprobs.append(logprob)
        self.settle([request for request in requests if request.finished()])
