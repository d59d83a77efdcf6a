"""The worker: gathers requests into waves, decodes, and hands back results.

One thread owns the model. Each turn it may prefill a wave of waiting requests and then decodes
one token of every running row.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

from bestofn import concurrency
from bestofn.engines.hf.decoding import DecodingBatch, reservation
from bestofn.engines.hf.kv import BLOCK, Layers, PrefixCache
from bestofn.engines.hf.requests import GenerateRequest, Request, ScoreRequest
from bestofn.engines.hf.runner import Fresh, Runner
from bestofn.errors import EngineError

PATIENCE = 6  # decoding steps that a request waits for company
COMPANY = 32  # waiting requests that make a wave worth its while at once


class Group(list[Request]):
    """Requests for the same computation: it runs once."""

    fresh: Fresh


class Scheduler(threading.Thread):
    """Runs requests until closed.

    Args:
        runner: The model.
        max_rows: Sequences decoded at once at most.
        wave_tokens: New tokens of one prefill forward pass, unless one sequence alone has more.
        kv_tokens: Tokens whose keys and values fit into the memory set aside for decoding.
        cache: The prefix cache.
    """

    def __init__(
        self, runner: Runner, max_rows: int, wave_tokens: int, kv_tokens: int, cache: PrefixCache
    ) -> None:
        super().__init__(name="bestofn-engine", daemon=True)
        self.runner = runner
        self.batch = DecodingBatch(runner, max_rows)
        self.wave_tokens = wave_tokens
        self.kv_tokens = kv_tokens
        self.cache = cache
        self.waiting: list[Request] = []
        self.waited = 0  # decoding steps since a request has been waiting
        self._open: set[Request] = set()  # everything whose waiter has not been woken
        self._inbox: list[Request] = []
        self._wake = threading.Condition()
        self._closed = False
        self._pid = os.getpid()

    def submit(self, request: Request) -> None:
        concurrency.require_process(self._pid, "a loaded model")
        with self._wake:
            if self._closed:
                raise EngineError("the engine is closed; load it again")
            self._inbox.append(request)
            self._wake.notify()

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        with torch.inference_mode():
            while self._receive():
                started = time.perf_counter()
                try:
                    self._turn()
                except Exception as error:
                    # Nothing is known of the batch's state any more: all in flight fail.
                    self._settle(list(self._open), _explain(error))
                    self.waiting.clear()
                    self.batch = DecodingBatch(self.runner, self.batch.max_rows)
                self.runner.stats.busy_seconds += time.perf_counter() - started
        self._settle([*self._open, *self._inbox], EngineError("the engine is closed"))
        self.waiting.clear()
        self.batch.segments.clear()
        self.cache.clear()
        self.runner.release()

    def _receive(self) -> bool:
        """Waits for something to do; False once the engine is closed."""
        with self._wake:
            while not (self._closed or self._inbox or self.waiting or self.batch.segments):
                self._wake.wait()
            self.waiting += self._inbox
            self._open.update(self._inbox)
            self._inbox.clear()
            return not self._closed

    def _turn(self) -> None:
        self._drop_cancelled()
        while self.waiting and self._wave_is_due():
            groups = self._plan()
            if not groups:
                break
            for wave in self._waves(groups):
                self._run_wave(wave)
            self.waited = 0
        if self.batch.segments:
            self._settle(self.batch.step())
            self.waited += bool(self.waiting)

    def _drop_cancelled(self) -> None:
        gone = [request for request in self._open if request.future.done()]
        if gone:
            self._open.difference_update(gone)
            self.waiting = [request for request in self.waiting if request in self._open]
            self.batch.remove(gone)

    def _wave_is_due(self) -> bool:
        return not self.batch.segments or len(self.waiting) >= COMPANY or self.waited >= PATIENCE

    def _plan(self) -> list[Group]:
        """Takes from the waiting requests what can run now, equal ones together.

        A request that shares a block with another that is about to compute it waits for that one,
        so that the block is computed once. A request to generate waits for a free row.
        """
        groups: dict[tuple[tuple[int, ...], int], Group] = {}
        computing: set[int] = set()
        left: list[Request] = []
        rows, reserved = len(self.batch.requests), self.batch.reserved
        for request in self.waiting:
            if isinstance(request, GenerateRequest):
                wanted = reservation(request)
                full = rows >= self.batch.max_rows or reserved + wanted > self.kv_tokens
                if rows and full:
                    left.append(request)
                    continue
            key = request.ids, request.wanted
            if key not in groups:
                prefix = self.cache.match(request.ids, request.keys, request.wanted)
                own = request.keys[prefix.tokens // BLOCK :]
                if own and own[0] in computing:
                    left.append(request)
                    continue
                computing.update(own)
                groups[key] = Group()
                groups[key].fresh = Fresh(request.ids, prefix, request.wanted)
            groups[key].append(request)
            if isinstance(request, GenerateRequest):
                rows, reserved = rows + 1, reserved + wanted
        self.waiting = left
        return list(groups.values())

    def _waves(self, groups: list[Group]) -> Iterator[list[Group]]:
        """Groups of similar length, so that little of a forward pass is padding."""
        wave: list[Group] = []
        for group in sorted(groups, key=lambda group: group.fresh.new):
            new = group.fresh.new
            total = max(g.fresh.prefix.tokens for g in [*wave, group]) + new
            if wave and (
                (len(wave) + 1) * new > self.wave_tokens
                or (len(wave) + 1) * total > 4 * self.wave_tokens
                or new > 16 + 1.5 * wave[0].fresh.new
            ):
                yield wave
                wave = []
            wave.append(group)
        yield wave

    def _run_wave(self, wave: Sequence[Group]) -> None:
        try:
            logits, layers = self.runner.prefill([group.fresh for group in wave])
        except Exception as error:
            # What is being decoded is untouched: only the wave fails.
            self._settle([request for group in wave for request in group], _explain(error))
        else:
            self._settle(self._take(wave, logits, layers))

    def _take(
        self, wave: Sequence[Group], logits: list[torch.Tensor], layers: list[Layers]
    ) -> list[Request]:
        """Scores and starts what a wave computed; returns the requests that are done with it."""
        done: list[Request] = []
        starting: list[tuple[GenerateRequest, int]] = []
        for index, group in enumerate(wave):
            fresh = group.fresh
            # What stands behind the prompt is read by nobody else.
            prompt = fresh.ids[: fresh.wanted + 1]
            self.cache.insert(prompt, group[0].keys, fresh.prefix, layers[index])
            for position, request in enumerate(group):
                request.cached_tokens = min(
                    fresh.prefix.tokens if position == 0 else len(fresh.ids),
                    request.prompt_tokens,
                )
                if isinstance(request, GenerateRequest):
                    starting.append((request, index))
            done += _score([r for r in group if isinstance(r, ScoreRequest)], logits[index])
        if starting:
            done += self.batch.start(
                [request for request, _ in starting],
                torch.stack([logits[index][-1] for _, index in starting]),
                [layers[index] for _, index in starting],
            )
        return done

    def _settle(self, requests: Sequence[Request], error: EngineError | None = None) -> None:
        """Wakes who waits, with one call into each event loop."""
        self._open.difference_update(requests)
        by_loop: dict[asyncio.AbstractEventLoop, list[Request]] = defaultdict(list)
        for request in requests:
            by_loop[request.loop].append(request)
        for waiting_in, settled in by_loop.items():
            # A loop that has been closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                waiting_in.call_soon_threadsafe(_wake, settled, error)


def _score(requests: list[ScoreRequest], logits: torch.Tensor) -> list[ScoreRequest]:
    """Reads the continuation's log-probabilities off the logits `[positions, vocabulary]`."""
    if requests:
        logprobs = torch.log_softmax(logits, dim=-1)
        for request in requests:
            targets = torch.tensor(request.continuation, device=logits.device)[:, None]
            request.logprobs = logprobs.gather(1, targets)[:, 0].tolist()
    return requests


def _wake(requests: list[Request], error: EngineError | None) -> None:
    for request in requests:
        if request.future.done():
            continue
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)


def _explain(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return EngineError(
            "the device is out of memory; load the engine with a smaller max_rows, "
            f"wave_tokens or kv_cache_gib ({error})"
        )
    wrapped = EngineError(f"the model failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
