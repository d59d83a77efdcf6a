"""The decoding batch: rows join when they are prefilled and leave when they are done."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from bestofn.engines.hf.attention import Step
from bestofn.engines.hf.kv import BatchKV, Layers
from bestofn.engines.hf.requests import GenerateRequest, Request
from bestofn.engines.hf.runner import Runner
from bestofn.engines.hf.sampling import RowParams, choose, uniforms

SPARE = 32  # columns to grow into before a segment's buffers are copied
SLACK = 32  # columns of padding that are not worth a segment, or a copy, of their own


def reservation(request: GenerateRequest) -> int:
    """Tokens of memory to set aside: up to twice its length with padding, and room to grow."""
    return 3 * request.final_length


class Segment:
    """Rows of similar length, all ending at the same column.

    Attributes:
        requests: One for each row.
        kv: Their keys and values.
        starts: The first column of each row, int64 `[rows]`.
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        self.requests: list[GenerateRequest] = []
        self.kv = BatchKV(layers, SPARE)
        self.starts = torch.zeros(0, dtype=torch.int64, device=device)

    def padding(self, length: int) -> int:
        """Columns of padding that a new row of this length would have, or cause in each row."""
        return abs(self.kv.columns - length)

    def suits(self, length: int) -> bool:
        """Whether with such a row no row would be padded to more than twice its length."""
        shortest = min(self.kv.columns - int(self.starts.max()), length)
        return max(self.kv.columns, length) <= 2 * shortest + SLACK

    def join(self, requests: Sequence[GenerateRequest], layers: list[Layers]) -> None:
        before = self.kv.columns
        self.kv.set_rows(len(self.requests), layers)
        new = [self.kv.columns - len(request.ids) for request in requests]
        shifted = self.starts + (self.kv.columns - before)
        self.starts = torch.cat([shifted, shifted.new_tensor(new)])
        self.requests += requests

    def remove(self, leaving: set[int]) -> None:
        """Takes out requests by `id`; the last rows fill the gaps."""
        kept = [row for row, r in enumerate(self.requests) if id(r) not in leaving]
        if len(kept) == len(self.requests):
            return
        count = len(kept)
        movers = [row for row in kept if row >= count]
        gaps = sorted(set(range(count)) - set(kept))
        if movers:
            source, target = torch.tensor(movers), torch.tensor(gaps)
            self.kv.move(target, source)
            self.starts[target] = self.starts[source]
            for gap, mover in zip(gaps, movers, strict=True):
                self.requests[gap] = self.requests[mover]
        del self.requests[count:]
        self.starts = self.starts[:count].clone()
        if count:
            self._trim()
            self.kv.shrink(count)

    def _trim(self) -> None:
        """Cuts off the padding that all rows have, once it is worth the copy."""
        padding = int(self.starts.min())
        if padding >= max(SLACK, self.kv.columns // 4):
            self.kv.shift(-padding, len(self.requests))
            self.starts -= padding


class DecodingBatch:
    """The requests that are being decoded, a row each.

    Args:
        runner: The model.
        max_rows: Rows at most.
    """

    def __init__(self, runner: Runner, max_rows: int) -> None:
        self.runner = runner
        self.max_rows = max_rows
        self.segments: list[Segment] = []

    @property
    def requests(self) -> list[GenerateRequest]:
        return [request for segment in self.segments for request in segment.requests]

    @property
    def reserved(self) -> int:
        return sum(map(reservation, self.requests))

    def start(
        self, requests: list[GenerateRequest], logits: torch.Tensor, layers: list[Layers]
    ) -> list[GenerateRequest]:
        """Draws the first token of prefilled requests; those that go on join.

        Args:
            requests: New ones.
            logits: float32 `[requests, vocabulary]`, at each prompt's last position.
            layers: Keys and values of each prompt.

        Returns:
            Those that are done after one token.
        """
        done = self._draw(requests, logits)
        finished = {id(request) for request in done}
        staying = [row for row, request in enumerate(requests) if id(request) not in finished]
        for rows in self._by_length(staying, requests):
            segment = self._segment_for([len(requests[row].ids) for row in rows])
            segment.join([requests[row] for row in rows], [layers[row] for row in rows])
        return done

    @staticmethod
    def _by_length(rows: list[int], requests: list[GenerateRequest]) -> list[list[int]]:
        """The rows in groups of similar length."""
        groups: list[list[int]] = []
        for row in sorted(rows, key=lambda row: len(requests[row].ids)):
            length = len(requests[row].ids)
            if not groups or length > 2 * len(requests[groups[-1][0]].ids) + SLACK:
                groups.append([])
            groups[-1].append(row)
        return groups

    def _segment_for(self, lengths: list[int]) -> Segment:
        """The segment in which new rows waste the least, or a new one."""
        suitable = [s for s in self.segments if s.suits(lengths[0]) and s.suits(lengths[-1])]
        if suitable:
            return min(suitable, key=lambda segment: segment.padding(lengths[-1]))
        self.segments.append(Segment(self.runner.layers, self.runner.device))
        return self.segments[-1]

    def step(self) -> list[GenerateRequest]:
        """One token for each row; the requests that are done have left the batch."""
        requests = self.requests
        positions = torch.cat([s.kv.columns - s.starts for s in self.segments])
        ids = torch.tensor([request.tokens[-1] for request in requests])
        logits = self.runner.decode(ids, positions, Step(self.segments))
        done = self._draw(requests, logits)
        if done:
            self.remove(done)
        return done

    def _draw(
        self, requests: Sequence[GenerateRequest], logits: torch.Tensor
    ) -> list[GenerateRequest]:
        """Appends a token to each request; returns those that are done."""
        rows = RowParams.of(np.array([r.row for r in requests], np.float32), logits.device)
        seeds = np.array([request.seed for request in requests], np.uint64)
        steps = np.array([len(request.tokens) for request in requests], np.uint64)
        seen = _seen(requests, logits) if rows.penalised else None
        tokens, logprobs = choose(logits, rows, uniforms(seeds, steps), seen)
        done = []
        for request, token, logprob in zip(
            requests, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            request.tokens.append(token)
            request.logprobs.append(logprob)
            if request.finished():
                done.append(request)
        return done

    def remove(self, requests: Iterable[Request]) -> None:
        leaving = {id(request) for request in requests}
        for segment in self.segments:
            segment.remove(leaving)
        self.segments = [segment for segment in self.segments if segment.requests]


def _seen(requests: Sequence[GenerateRequest], logits: torch.Tensor) -> torch.Tensor:
    """The tokens that occurred in each request, bool like the logits."""
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for row, request in enumerate(requests):
        if request.params.repetition_penalty != 1:
            seen[row, [*request.ids, *request.tokens]] = True
    return seen.to(logits.device)
