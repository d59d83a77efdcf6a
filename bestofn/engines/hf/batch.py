"""Sequences in transformers' own cache: padded rows, and prefixes kept for later requests."""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import takewhile

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""One sequence's keys and values: for each layer a pair of tensors `[heads, tokens, dim]`."""

BLOCK = 16  # tokens; prefixes are shared in whole blocks


class Batch:
    """Rows of one cache, which begin with prefixes; padded on the left, so that all end together.

    Attributes:
        cache: Keys and values, `[rows, heads, columns, dim]` in each layer.
        lengths: Tokens of each row, int64 `[rows]`, on the CPU.
    """

    def __init__(self, prefixes: Sequence[Layers] = ()) -> None:
        self.cache = DynamicCache()
        lengths = [prefix[0][0].shape[1] if prefix else 0 for prefix in prefixes]
        self.lengths = torch.tensor(lengths, dtype=torch.int64)
        for layer, parts in enumerate(next(filter(None, prefixes), [])):
            rows = [row[layer] if row else [part[:, :0] for part in parts] for row in prefixes]
            keys, values = (
                torch.stack([pad(x, (0, 0, max(lengths) - x.shape[1], 0)) for x in part])
                for part in zip(*rows, strict=True)
            )
            self.cache.update(keys, values, layer)

    @property
    def columns(self) -> int:
        return int(self.cache.get_seq_length())

    def forward(
        self,
        model: PreTrainedModel,
        ids: torch.Tensor,
        new: torch.Tensor,
        picked: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Appends tokens to the rows, and returns logits, float32 `[picked, vocabulary]`.

        Args:
            model: The model.
            ids: The tokens, int64 `[rows, width]`; rows with fewer are padded on the right.
            new: How many each row has, int64 `[rows]`.
            picked: Rows and columns of `ids` whose logits are wanted, each int64 `[picked]`.
        """
        before, width = self.columns, ids.shape[1]
        positions = torch.arange(before + width) - (before - self.lengths)[:, None]
        self.lengths = self.lengths + new
        mask = (positions >= 0) & (positions < self.lengths[:, None])
        # Padding repeats a row's last position, which every model can embed.
        positions = torch.minimum(positions[:, before:], self.lengths[:, None] - 1)
        # Other columns of each row are wanted, so they are picked in front of the output layer;
        # what the model does after it, such as capping, is left to the model.
        hook = model.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs: (inputs[0][picked][None],)
        )
        try:
            logits: torch.Tensor = model(
                input_ids=ids.to(model.device),
                attention_mask=None if bool(mask.all()) else mask.to(model.device),
                position_ids=positions.to(model.device),
                past_key_values=self.cache,
                use_cache=True,
            ).logits[0]
        finally:
            hook.remove()
        self._align(width - new)
        return logits.float()

    def _align(self, padding: torch.Tensor) -> None:
        """Moves each row's padding, so many columns on the right, to its left."""
        if not bool(padding.any()):
            return
        index = (torch.arange(self.columns) - padding[:, None]) % self.columns
        for layer in self.cache.layers:
            places = index[:, None, :, None].to(layer.keys.device)
            layer.keys = layer.keys.gather(2, places.expand_as(layer.keys))
            layer.values = layer.values.gather(2, places.expand_as(layer.values))

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order; one may be named several times."""
        index = torch.tensor(rows)
        self.lengths = self.lengths[index]
        self._set_columns(int(self.lengths.max()))
        self.cache.batch_select_indices(index)

    def join(self, other: "Batch") -> None:
        """Appends the rows of another batch."""
        columns = max(self.columns, other.columns)
        self._set_columns(columns)
        other._set_columns(columns)
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.lengths = torch.cat([self.lengths, other.lengths])

    def _set_columns(self, columns: int) -> None:
        """Adds padding on the left, or cuts it off."""
        by = columns - self.columns
        for layer in self.cache.layers:
            layer.keys = pad(layer.keys, (0, 0, by, 0))
            layer.values = pad(layer.values, (0, 0, by, 0))

    def row(self, index: int) -> Layers:
        """Views of a row without its padding."""
        start = self.columns - int(self.lengths[index])
        return [(x.keys[index, :, start:], x.values[index, :, start:]) for x in self.cache.layers]


class PrefixCache:
    """Keys and values of prompts, in blocks, for so many tokens; the longest unused go first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[bytes, Layers] = OrderedDict()  # the next to be dropped first

    @property
    def tokens(self) -> int:
        return len(self._blocks) * BLOCK

    def match(self, ids: tuple[int, ...]) -> int:
        """How many tokens that `ids` starts with are cached."""
        known = list(takewhile(self._blocks.__contains__, _keys(ids)))
        self._touch(known)
        return len(known) * BLOCK

    def layers(self, ids: tuple[int, ...]) -> Layers:
        """Keys and values of a sequence that is cached."""
        blocks = [self._blocks[key] for key in _keys(ids)]
        return [
            (torch.cat([k for k, _ in parts], dim=1), torch.cat([v for _, v in parts], dim=1))
            for parts in zip(*blocks, strict=True)
        ]

    def insert(self, ids: tuple[int, ...], layers: Layers) -> None:
        """Keeps the whole blocks of `ids`, which `layers` starts with."""
        keys = _keys(ids)
        for place, key in enumerate(keys):
            if key not in self._blocks:
                part = slice(place * BLOCK, (place + 1) * BLOCK)
                self._blocks[key] = [(k[:, part].clone(), v[:, part].clone()) for k, v in layers]
        self._touch(keys)
        while self.tokens > self.capacity:
            self._blocks.popitem(last=False)

    def _touch(self, keys: list[bytes]) -> None:
        for key in reversed(keys):  # a block stays longer than those behind it
            self._blocks.move_to_end(key)


def _keys(ids: tuple[int, ...]) -> list[bytes]:
    """A hash for each whole block, of its tokens and all those before it."""
    keys, key = [], b""
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = blake2b(key + array("q", ids[start : start + BLOCK]).tobytes()).digest()
        keys.append(key)
    return keys
