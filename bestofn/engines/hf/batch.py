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
        self,
        model: PreTrainedModel,
        ids: torch.Tensor,
        new: torch.Tensor,
        picked: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Appends tokens to the rows.

        Args:
            model: The model.
            ids: The tokens, int64 `[rows, width]`; rows with fewer are padded on the right.
            new: How many each row has, int64 `[rows]`.
            picked: Rows and columns of `ids` whose logits are wanted, each int64 `[picked]`.

        Returns:
            float32 `[picked, vocabulary]`.
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


def cached_rows(rows: Sequence[list[Block]]) -> Batch:
    """A batch of cached prefixes, each given as its blocks."""
    cache = DynamicCache()
    lengths = torch.tensor([len(blocks) * BLOCK for blocks in rows])
    longest = max(rows, key=len)

    def padded(blocks: list[Block], layer: int, part: int) -> torch.Tensor:
        parts = [block.layers[layer][part] for block in blocks or longest[:1]]
        missing = (len(longest) - len(parts)) * BLOCK
        tensor = pad(torch.cat(parts, dim=1), (0, 0, missing, 0))
        return tensor if blocks else torch.zeros_like(tensor)

    for layer in range(len(longest[0].layers) if longest else 0):
        keys, values = (torch.stack([padded(row, layer, part) for row in rows]) for part in (0, 1))
        cache.update(keys, values, layer)
    return Batch(cache, lengths)
