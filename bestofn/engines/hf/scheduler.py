"""Which requests are computed together, and the tokens that are drawn from their logits."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import log
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, RepetitionPenaltyLogitsProcessor

from bestofn.engines.base import SamplingParams
from bestofn.engines.hf.batch import BLOCK, Batch, PrefixCache
from bestofn.engines.hf.model import Request, Worker
from bestofn.types import FinishReason, Usage

PATIENCE = 6  # decoding steps that a request waits for company
CACHE_SHARE = 0.25  # of the memory for keys and values, for prefixes
WAVE = 4096  # new tokens of one prefill forward pass, unless one sequence alone has more


@dataclass(slots=True, eq=False, kw_only=True)
class TextRequest(Request):
    """A prompt to continue by `limit` tokens at most, or whose continuation is to be scored.

    Attributes:
        ids: The prompt, and all of a scored continuation but its last token.
        prompt_tokens: How many of them are the prompt.
        scored: The continuation to score; empty where one is generated.
        cached_tokens: Prompt tokens that were not computed for it; known once it runs.
        logprobs: Of the tokens generated or scored.
        confidences: See `Completion.token_confidences`; empty where none are asked for.
        on_token: Called after each token that is not the last, in the thread of the model.
    """

    prompt_tokens: int
    scored: tuple[int, ...] = ()
    params: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    limit: int = 0
    cached_tokens: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    on_token: Callable[[], None] | None = None

    @property
    def tail(self) -> int:
        """Last positions whose logits are needed."""
        return len(self.scored) or 1

    @property
    def new(self) -> int:
        """Positions to compute."""
        return len(self.ids) - self.cached_tokens

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            generated_tokens=len(self.tokens),
            scored_tokens=len(self.scored),
            seconds=self.seconds,
        )


class Scheduler(Worker[TextRequest]):
    """Prefills requests in waves and decodes one padded batch, which they join and leave.

    Keys and values of `kv_tokens` fit into memory; the tokens `ends` end a response.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        max_rows: int,
        kv_tokens: int,
        ends: frozenset[int],
        decode: Callable[[list[int]], str],
    ) -> None:
        super().__init__(model, "the engine", "load it with a smaller max_rows or kv_cache_gib")
        self.max_rows, self.ends, self.decode = max_rows, ends, decode
        self.prefixes = PrefixCache(int(kv_tokens * CACHE_SHARE))
        self.kv_tokens = kv_tokens - self.prefixes.capacity
        self.reset()

    def reset(self) -> None:
        self.running: list[TextRequest] = []  # one for each row of the batch
        self.batch = Batch()
        self._waited = 0  # decoding steps since a request has been waiting

    def turn(self) -> None:
        self._drop_done()
        if not self.running or self._waited >= PATIENCE:
            while wave := self._next_wave():
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

    def _next_wave(self) -> list[list[TextRequest]]:
        """Takes from the waiting requests what one forward pass computes, equal ones together.

        They lack about as many tokens, so that little is padding. What shares a block with another
        request that is about to compute it waits for that one, and what generates for a free row.
        """
        wave: dict[tuple[tuple[int, ...], int], list[TextRequest]] = {}
        computing: set[tuple[int, ...]] = set()
        first, most, longest = 0, 0, 0  # tokens to compute of the first row and of any; of all
        lengths = [len(request.ids) + request.limit for request in self.running]
        for request in self.waiting:
            final = [len(request.ids) + request.limit] if request.limit else []
            if final and not self._has_room(lengths + final):
                continue
            key = request.ids, request.tail
            if key in wave:
                request.cached_tokens = request.prompt_tokens  # the first one computes for all
            else:
                request.cached_tokens = self.prefixes.match(request.ids[: -request.tail])
                block = request.ids[: request.cached_tokens + BLOCK]
                first = first or request.new
                if block in computing or abs(request.new - first) > 16 + first // 4:
                    continue
                most, longest = max(most, request.new), max(longest, len(request.ids))
                if wave and (len(wave) + 1) * max(most, longest // 4) > WAVE:
                    break
                if len(block) <= request.prompt_tokens:
                    computing.add(block)
            wave.setdefault(key, []).append(request)
            request.taken = True
            lengths += final
        return list(wave.values())

    def _has_room(self, lengths: list[int]) -> bool:
        """Whether rows of these lengths can be decoded together; one alone always can."""
        rows = len(lengths)
        return rows == 1 or (rows <= self.max_rows and rows * max(lengths) <= self.kv_tokens)

    def _run_wave(self, wave: list[list[TextRequest]]) -> None:
        starting: list[TextRequest] = []
        rows: list[int] = []
        # Nothing in here touches what is being decoded.
        with self.failing([request for group in wave for request in group]):
            batch, logits = self._prefill([group[0] for group in wave])
            for row, request in ((row, r) for row, group in enumerate(wave) for r in group):
                if request.scored:
                    targets = torch.tensor(request.scored, device=logits[row].device)[:, None]
                    found = logits[row].log_softmax(-1).gather(1, targets)
                    request.logprobs = found[:, 0].tolist()
                    self.settle([request])
                else:
                    starting.append(request)
                    rows.append(row)
        if starting:
            self._draw(starting, torch.stack([logits[row][-1] for row in rows]))
            batch.select(rows)
            if self.running:
                self.batch.join(batch)
            else:
                self.batch = batch
            self.running += starting

    def _prefill(self, requests: list[TextRequest]) -> tuple[Batch, tuple[torch.Tensor, ...]]:
        """New sequences, and the last logits of each, float32 `[tail, vocabulary]`."""
        batch = Batch([self.prefixes.layers(r.ids[: r.cached_tokens]) for r in requests])
        ids = [torch.tensor(request.ids[request.cached_tokens :]) for request in requests]
        new = torch.tensor([request.new for request in requests])
        tails = [request.tail for request in requests]
        rows = torch.arange(len(requests)).repeat_interleave(torch.tensor(tails))
        columns = torch.cat([torch.arange(r.new - r.tail, r.new) for r in requests])
        padded = pad_sequence(ids, batch_first=True)
        logits = batch.forward(self.model, padded, new, (rows, columns))
        for row, request in enumerate(requests):
            # What follows the prompt is read by no other request.
            self.prefixes.insert(request.ids[: request.prompt_tokens], batch.row(row))
        return batch, torch.split(logits, tails)

    def _decode(self) -> None:
        """One token for each row."""
        ids = torch.tensor([[request.tokens[-1]] for request in self.running])
        rows = torch.arange(len(ids))
        picked = rows, torch.zeros_like(rows)
        self._draw(self.running, self.batch.forward(self.model, ids, torch.ones_like(rows), picked))

    def _draw(self, requests: Sequence[TextRequest], logits: torch.Tensor) -> None:
        """Appends a token to each request, and settles those for which it is the last."""
        tokens = sample(
            logits,
            [request.params for request in requests],
            [uniform(request.seed, len(request.tokens)) for request in requests],
            [chain(request.ids, request.tokens) for request in requests],
        )
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=-1)
        for request, token, logprob in zip(
            requests, tokens.tolist(), logprobs.tolist(), strict=True
        ):
            request.tokens.append(token)
            request.logprobs.append(logprob)
            if self._stops(request):
                request.finish_reason = "stop"
        for number, request in enumerate(requests):
            if request.params.confidence is not None:
                found = confidence(logits[number], request.params.confidence)
                request.confidences.append(found)
        last = [r for r in requests if r.finish_reason == "stop" or len(r.tokens) >= r.limit]
        for request in requests:
            if request.on_token is not None and request not in last:
                request.on_token()
        self.settle(last)

    def _stops(self, request: TextRequest) -> bool:
        if request.tokens[-1] in self.ends or not request.params.stop:
            return request.tokens[-1] in self.ends
        # A token is at least one byte, so that many tokens hold any stop string that just ended.
        tail = max(len(stop.encode()) for stop in request.params.stop) + 4
        text = self.decode(request.tokens[-tail:])
        return any(stop in text for stop in request.params.stop)


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1): output `step`, from 0, of SplitMix64 started at the seed, of 64 bits.

    A candidate's tokens depend on its seed and on nothing else in the batch, and no generator state
    has to be kept. Source: Steele, Lea, Flood (2014), "Fast splittable pseudorandom number
    generators".
    """
    z = (seed + (step + 1) * 0x9E3779B97F4A7C15) % (1 << 64)
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
    z = (z ^ z >> 27) * 0x94D049BB133111EB % (1 << 64)
    return float((z ^ z >> 31) >> 11) * 2.0**-53


def sample(
    logits: torch.Tensor,
    params: Sequence[SamplingParams],
    numbers: Sequence[float],
    seen: Sequence[Iterable[int]],
) -> torch.Tensor:
    """The next token of each row, int64 `[rows]`.

    Args:
        logits: float32 `[rows, vocabulary]`.
        params: One for each row; equal ones are drawn together.
        numbers: One in [0, 1) for each row.
        seen: The tokens that occurred in each row, for repetition penalties.
    """
    groups: dict[SamplingParams, list[int]] = defaultdict(list)
    for row, own in enumerate(params):
        groups[own].append(row)
    tokens = torch.empty(len(params), dtype=torch.int64, device=logits.device)
    for own, rows in groups.items():
        part = logits[rows]
        if own.repetition_penalty != 1:
            lists = [list(seen[row]) for row in rows]
            longest = max(map(len, lists))
            padded = [[*one, *one[-1:] * (longest - len(one))] for one in lists]
            penalised = RepetitionPenaltyLogitsProcessor(float(own.repetition_penalty))
            part = penalised(torch.tensor(padded, device=part.device), part)
        if own.temperature == 0:
            tokens[rows] = part.argmax(dim=-1)
        else:
            tokens[rows] = _draw(part, own, [numbers[row] for row in rows])
    return tokens


def confidence(logits: torch.Tensor, tokens: int | Literal["all"]) -> float:
    """See `Completion.token_confidences`; `logits` are float32 `[vocabulary]`."""
    logprobs = logits.log_softmax(dim=-1)
    if tokens != "all":
        logprobs = logprobs.topk(min(tokens, len(logprobs))).values
    return -float(logprobs.mean()) - log(len(logprobs))


def _draw(logits: torch.Tensor, params: SamplingParams, numbers: Sequence[float]) -> torch.Tensor:
    """Inverse-CDF sampling: one number picks one token."""
    probs, order = torch.softmax(logits / max(params.temperature, 1e-6), dim=-1), None
    if params.top_p < 1 or params.top_k or params.min_p:
        probs, order = probs.sort(dim=-1, descending=True)
        probs = probs.masked_fill(probs < params.min_p * probs[:, :1], 0.0)
        if params.top_k:
            probs[:, params.top_k :] = 0.0
        probs = probs / probs.sum(dim=-1, keepdim=True)
        if params.top_p < 1:
            before = probs.cumsum(dim=-1) - probs
            probs = probs.masked_fill(before >= params.top_p, 0.0)
    # MPS has no float64; float32 sums err by about 1e-6 there.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = probs.to(precise).cumsum(dim=-1)
    target = torch.tensor(numbers, dtype=precise, device=logits.device)[:, None]
    picked = torch.searchsorted(cumulative, target * cumulative[:, -1:], right=True)
    picked = picked.clamp_max(probs.shape[-1] - 1)
    return (picked if order is None else order.gather(1, picked))[:, 0]
