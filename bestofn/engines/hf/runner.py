"""Forward passes: a wave of new sequences at once, with what is cached of them left out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from bestofn.engines.hf.attention import Step, decoding
from bestofn.engines.hf.kv import BatchKV, Layers, Prefix


@dataclass(slots=True)
class Stats:
    """Counts since the engine was loaded.

    Attributes:
        forward_seconds: Time inside the model's forward passes.
        busy_seconds: Time in which the engine had work, forward passes included.
        forward_passes: Their number.
        computed_tokens: Positions computed, padding not counted.
        padding_tokens: Positions computed in vain.
    """

    forward_seconds: float = 0.0
    busy_seconds: float = 0.0
    forward_passes: int = 0
    computed_tokens: int = 0
    padding_tokens: int = 0


@dataclass(slots=True)
class Fresh:
    """A sequence to be computed: its ids, its cached prefix, and where its logits start.

    Attributes:
        ids: All tokens.
        prefix: The cached part; shorter than `wanted + 1`.
        wanted: The first position whose logits are needed; those up to the last one are.
    """

    ids: tuple[int, ...]
    prefix: Prefix
    wanted: int

    @property
    def new(self) -> int:
        return len(self.ids) - self.prefix.tokens


@dataclass(slots=True)
class Runner:
    """One model and its forward passes."""

    model: PreTrainedModel
    stats: Stats = field(default_factory=Stats)
    _picked: tuple[torch.Tensor, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        # Logits are needed at few positions, other ones in each row. Picking the hidden states in
        # front of the output layer leaves to the model what it does after it (scaling, capping).
        self.model.get_output_embeddings().register_forward_pre_hook(self._pick)

    def _pick(self, module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        if self._picked is None:
            return args
        return (args[0][self._picked][None],)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        kv: Cache,
        picked: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """One forward pass that appends to `kv`.

        Args:
            ids: int64 `[rows, new]`.
            positions: int64 `[rows, new]`.
            mask: bool `[rows, columns + new]`, False at padding; None where `kv` brings its own.
            kv: Keys and values of the columns so far.
            picked: Rows and new columns, each int64 `[picked]`, whose logits are wanted.

        Returns:
            float32 `[picked, vocabulary]`.
        """
        started = time.perf_counter()
        self._picked = picked
        try:
            logits: torch.Tensor = self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=kv,
                use_cache=True,
            ).logits[0]
        finally:
            self._picked = None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.stats.forward_seconds += time.perf_counter() - started
        self.stats.forward_passes += 1
        return logits.float()

    def decode(self, ids: torch.Tensor, positions: torch.Tensor, step: Step) -> torch.Tensor:
        """One token for each row of all segments.

        Args:
            ids: int64 `[rows]`, each row's last token.
            positions: int64 `[rows]`, its position.
            step: The segments that the rows belong to.

        Returns:
            float32 `[rows, vocabulary]`.
        """
        rows = torch.arange(len(ids), device=self.device)
        with decoding(step):
            logits = self.forward(
                ids.to(self.device)[:, None],
                positions.to(self.device)[:, None],
                None,
                step,
                (rows, torch.zeros_like(rows)),
            )
        self.stats.computed_tokens += len(ids)
        return logits

    def release(self) -> None:
        """Lets go of the model; no forward pass is possible any more."""
        cuda = self.device.type == "cuda"
        del self.model
        if cuda:
            torch.cuda.empty_cache()

    def prefill(self, batch: Sequence[Fresh]) -> tuple[list[torch.Tensor], list[Layers]]:
        """Computes new sequences, right-padded behind their left-padded cached prefixes.

        Returns:
            For each sequence the logits from `wanted` on, float32 `[positions, vocabulary]`, and
            views of its own keys and values.
        """
        cached = max(fresh.prefix.tokens for fresh in batch)
        width = max(fresh.new for fresh in batch)
        kv = BatchKV(self.layers, spare=width)
        if cached:
            kv.set_rows(0, self._prefix_rows(batch))
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        mask = torch.zeros(len(batch), cached + width, dtype=torch.bool)
        rows: list[int] = []
        columns: list[int] = []
        for row, fresh in enumerate(batch):
            start = fresh.prefix.tokens
            ids[row, : fresh.new] = torch.tensor(fresh.ids[start:])
            mask[row, cached - start : cached + fresh.new] = True
            wanted = range(fresh.wanted - start, fresh.new)
            rows += [row] * len(wanted)
            columns += wanted
        starts = torch.tensor([[fresh.prefix.tokens] for fresh in batch])
        # Padding repeats the row's last position, which every model can embed.
        lengths = torch.tensor([[len(fresh.ids)] for fresh in batch])
        positions = torch.minimum(starts + torch.arange(width), lengths - 1)
        picked = torch.tensor(rows), torch.tensor(columns)
        logits = self.forward(
            ids.to(self.device),
            positions.to(self.device),
            mask.to(self.device),
            kv,
            (picked[0].to(self.device), picked[1].to(self.device)),
        )
        computed = sum(fresh.new for fresh in batch)
        self.stats.computed_tokens += computed
        self.stats.padding_tokens += ids.numel() - computed
        views = [
            kv.row(row, cached - fresh.prefix.tokens, cached + fresh.new)
            for row, fresh in enumerate(batch)
        ]
        counts = [len(fresh.ids) - fresh.wanted for fresh in batch]
        return list(torch.split(logits, counts)), views

    def _prefix_rows(self, batch: Sequence[Fresh]) -> list[Layers]:
        """The cached part of each sequence; one without any gets none of the longest."""
        longest = max(batch, key=lambda fresh: fresh.prefix.tokens).prefix.layers()
        nothing = [(keys[:, :0], values[:, :0]) for keys, values in longest]
        # Sequences of one wave mostly share their prefix: put each together once.
        known: dict[tuple[tuple[int, int], ...], Layers] = {(): nothing}
        rows = []
        for fresh in batch:
            key = tuple((id(span), tokens) for span, tokens in fresh.prefix.spans)
            if key not in known:
                known[key] = fresh.prefix.layers()
            rows.append(known[key])
        return rows
