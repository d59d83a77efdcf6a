"""Sequences in transformers' own cache: padded rows, and prefixes kept for later requests."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""One sequence's keys and values: for each layer a pair of tensors `[heads, tokens, dim]`."""

BLOCK = 16  # tokens; prefixes are shared in whole blocks


class Batch:
    """Rows of one cache, padded on the left: each ends at the last column.

    Attributes:
        cache: Keys and values, `[rows, heads, columns, dim]` in each layer.
        lengths: Tokens of each row, int64 `[rows]`, on the CPU.
    """

    def __init__(self, cache: DynamicCache, lengths: torch.Tensor) -> None:
        self.cache = cache
        self.lengths = lengths

    @property
    def columns(self) -> int:
        return int(self.cache.get_seq_length())

    def forward(
        self, model: PreTrainedModel, ids: torch.Tensor, lengths: torch.Tensor, keep: int
    ) -> torch.Tensor:
        """Appends tokens to all rows.

        Args:
            model: The model.
            ids: The last tokens of each row, int64 `[rows, new]`; any where a row is shorter.
            lengths: Tokens of each row with these, int64 `[rows]`.
            keep: Last positions whose logits are wanted.

        Returns:
            float32 `[rows, keep, vocabulary]`.
        """
        columns = self.columns + ids.shape[1]
        positions = torch.arange(columns) - (columns - lengths)[:, None]
        mask = positions >= 0
        logits: torch.Tensor = model(
            input_ids=ids.to(model.device),
            attention_mask=None if bool(mask.all()) else mask.to(model.device),
            position_ids=positions[:, self.columns :].clamp_min(0).to(model.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        self.lengths = lengths
        return logits.float()

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


@dataclass(slots=True, eq=False)
class Block:
    """Keys and values of `BLOCK` tokens behind those of `parent`."""

    ids: tuple[int, ...] = ()
    parent: "Block | None" = None
    layers: Layers = field(default_factory=list)
    children: dict[tuple[int, ...], "Block"] = field(default_factory=dict)


class PrefixCache:
    """Keys and values of prompts, as a tree of blocks; the least recently used are dropped first.

    Args:
        capacity: Tokens it holds at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._root = Block()
        # A block is always more recent than its children, so that the oldest one has none.
        self._recent: OrderedDict[Block, None] = OrderedDict()

    @property
    def tokens(self) -> int:
        return len(self._recent) * BLOCK

    def match(self, ids: tuple[int, ...]) -> list[Block]:
        """The cached blocks that `ids` starts with."""
        path, block = [], self._root
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            found = block.children.get(ids[start : start + BLOCK])
            if found is None:
                break
            block = found
            path.append(block)
        self._touch(path)
        return path

    def insert(self, ids: tuple[int, ...], layers: Layers) -> None:
        """Keeps the whole blocks of `ids`, which `layers` starts with."""
        path, block = [], self._root
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key, part = ids[start : start + BLOCK], slice(start, start + BLOCK)
            if key not in block.children:
                kept = [(keys[:, part].clone(), values[:, part].clone()) for keys, values in layers]
                block.children[key] = Block(key, block, kept)
            block = block.children[key]
            path.append(block)
        self._touch(path)
        while self.tokens > self.capacity:
            oldest, _ = self._recent.popitem(last=False)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.ids]

    def _touch(self, path: list[Block]) -> None:
        for block in reversed(path):
            self._recent[block] = None
            self._recent.move_to_end(block)


def cached_rows(rows: Sequence[tuple[list[Block], int]]) -> DynamicCache:
    """A cache of rows that are padded on the left.

    Args:
        rows: For each row its blocks, and how many of their tokens to take.
    """
    cache = DynamicCache()
    columns = max(tokens for _, tokens in rows)
    if not columns:
        return cache
    some = next(blocks for blocks, _ in rows if blocks)

    def stacked(layer: int, part: int) -> torch.Tensor:
        tensors = []
        for blocks, tokens in rows:
            whole = torch.cat([block.layers[layer][part] for block in blocks or some], dim=1)
            tensors.append(pad(whole[:, :tokens], (0, 0, columns - tokens, 0)))
        return torch.stack(tensors)

    for layer in range(len(some[0].layers)):
        cache.update(stacked(layer, 0), stacked(layer, 1), layer)
    return cache
