"""The decoding batch: rows join when they are prefilled and leave when they are done."""

import numpy as np
import torch

from bestofn.engines.transformers.kv import BatchKV, Layers
from bestofn.engines.transformers.requests import GenerateRequest
from bestofn.engines.transformers.runner import Runner
from bestofn.engines.transformers.sampling import PARAMS, RowParams, as_row, choose, uniforms

TRIM = 32  # columns of padding common to all rows before they are cut off


class DecodingBatch:
    """The requests that are being decoded, a row each, all ending at the same column.

    Args:
        runner: The model.
        max_rows: Rows at most.
    """

    def __init__(self, runner: Runner, max_rows: int) -> None:
        self.runner = runner
        self.max_rows = max_rows
        self.requests: list[GenerateRequest] = []
        self.kv = BatchKV(runner.layers)
        self.starts = np.zeros(max_rows, np.int64)  # first column of each row
        self.params = np.zeros((max_rows, len(PARAMS)), np.float32)
        self.seeds = np.zeros(max_rows, np.uint64)
        self.seen: torch.Tensor | None = None  # [max_rows, vocabulary], if a penalty needs it

    def __len__(self) -> int:
        return len(self.requests)

    def columns_at_end(self, request: GenerateRequest | None = None) -> int:
        """How wide the batch may grow, with one more request in it if given."""
        running = [self.kv.columns + r.remaining for r in self.requests]
        if request is not None:
            start = max(self.kv.columns if running else 0, len(request.ids))
            running.append(start + request.remaining)
        return max(running, default=0)

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
        params = np.array([as_row(request.params) for request in requests], np.float32)
        seeds = np.array([request.seed for request in requests], np.uint64)
        seen = None
        if (params[:, PARAMS.index("repetition_penalty")] != 1).any():
            seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            for row, request in enumerate(requests):
                seen[row, list(request.ids)] = True
        uniform = uniforms(seeds, np.zeros(len(requests), np.uint64))
        rows = RowParams.of(params, logits.device)
        done = self._take(requests, *choose(logits, rows, uniform, seen))
        staying = [row for row, request in enumerate(requests) if request not in done]
        if staying:
            self._join(staying, requests, params, seeds, seen, layers)
        return done

    def _join(
        self,
        rows: list[int],
        requests: list[GenerateRequest],
        params: np.ndarray,
        seeds: np.ndarray,
        seen: torch.Tensor | None,
        layers: list[Layers],
    ) -> None:
        first, end = len(self), len(self) + len(rows)
        before = self.kv.columns
        self.kv.set_rows(first, [layers[row] for row in rows])
        self.starts[:first] += self.kv.columns - before
        self.starts[first:end] = [self.kv.columns - len(requests[row].ids) for row in rows]
        self.params[first:end] = params[rows]
        self.seeds[first:end] = seeds[rows]
        self.requests += [requests[row] for row in rows]
        if seen is not None:
            if self.seen is None:
                self.seen = seen.new_zeros(self.max_rows, seen.shape[1])
            self.seen[first:end] = seen[rows]
            for row in range(first, end):
                self.seen[row, self.requests[row].tokens[-1]] = True

    def step(self) -> list[GenerateRequest]:
        """One token for each row; the requests that are done have left the batch."""
        count, columns, device = len(self), self.kv.columns, self.runner.device
        starts = torch.from_numpy(self.starts[:count])
        ids = torch.tensor([[request.tokens[-1]] for request in self.requests])
        logits = self.runner.forward(
            ids.to(device),
            (columns - starts)[:, None].to(device),
            (torch.arange(columns + 1) >= starts[:, None]).to(device),
            self.kv,
            (torch.arange(count, device=device), torch.zeros(count, dtype=torch.int64)),
        )
        self.runner.stats.computed_tokens += count
        steps = np.array([len(request.tokens) for request in self.requests], np.uint64)
        rows = RowParams.of(self.params[:count], device)
        seen = None if self.seen is None else self.seen[:count]
        tokens, logprobs = choose(logits, rows, uniforms(self.seeds[:count], steps), seen)
        if seen is not None:
            seen[torch.arange(count, device=device), tokens] = True
        done = self._take(self.requests, tokens, logprobs)
        if done:
            self.remove({id(request) for request in done})
        return done

    def _take(
        self, requests: list[GenerateRequest], tokens: torch.Tensor, logprobs: torch.Tensor
    ) -> list[GenerateRequest]:
        """Appends a token to each request; returns those that are done."""
        done = []
        for request, token, logprob in zip(
            requests, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            request.tokens.append(token)
            request.logprobs.append(logprob)
            if request.finished():
                done.append(request)
        return done

    def remove(self, leaving: set[int]) -> None:
        """Takes out requests by `id`; the last rows fill the gaps."""
        kept = [row for row, r in enumerate(self.requests) if id(r) not in leaving]
        count = len(kept)
        if count == 0:
            self.requests, self.kv, self.seen = [], BatchKV(self.runner.layers), None
            return
        movers = [row for row in kept if row >= count]
        gaps = sorted(set(range(count)) - set(kept))
        if movers:
            source, target = torch.tensor(movers), torch.tensor(gaps)
            self.kv.move(target, source)
            for array in (self.starts, self.params, self.seeds):
                array[gaps] = array[movers]
            if self.seen is not None:
                self.seen[target] = self.seen[source]
            for gap, mover in zip(gaps, movers, strict=True):
                self.requests[gap] = self.requests[mover]
        del self.requests[count:]
        padding = int(self.starts[:count].min())
        if padding >= max(TRIM, self.kv.columns // 4):
            self.kv.shift(-padding)
            self.starts[:count] -= padding
