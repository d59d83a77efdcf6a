"""Keys and values: the rows of a batch, and the cache of prefixes already computed."""

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import groupby

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""One sequence's keys and values: for each layer a pair of tensors `[heads, tokens, dim]`."""

BLOCK = 16  # tokens; prefixes are shared in whole blocks


class BatchLayer(CacheLayerMixin):
    """One layer's keys and values `[rows, heads, columns, dim]`, in buffers with room to grow.

    transformers' own layers copy the whole cache at each step, or fix its size for good.
    """

    is_sliding = False

    def __init__(self, spare: int) -> None:
        super().__init__()
        self.columns = 0
        self.spare = spare

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_empty(0)
        self.values = value_states.new_empty(0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, _, new, _ = key_states.shape
        end = self.columns + new
        self.make_room(key_states, value_states, rows, end, live=rows)
        self.keys[:rows, :, self.columns : end] = key_states
        self.values[:rows, :, self.columns : end] = value_states
        self.columns = end
        return self.filled(rows)

    def make_room(
        self, keys: torch.Tensor, values: torch.Tensor, rows: int, columns: int, live: int
    ) -> None:
        """Grows the buffers to so many rows and columns, for entries like the ones given.

        Only the first `live` rows are worth keeping.
        """
        self.keys = _with_room(self.keys, keys, (rows, columns), (live, self.columns), self.spare)
        self.values = _with_room(
            self.values, values, (rows, columns), (live, self.columns), self.spare
        )

    def filled(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the first rows, of the columns that are filled."""
        return self.keys[:rows, :, : self.columns], self.values[:rows, :, : self.columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        return self.columns

    def get_max_length(self) -> int:
        return -1


def _with_room(
    buffer: torch.Tensor | None,
    like: torch.Tensor,
    needed: tuple[int, int],
    live: tuple[int, int],
    spare: int,
) -> torch.Tensor:
    """`buffer`, or another one with its live rows and columns, if it is too small.

    What is not written yet is zero: a masked column still enters sums, with weight zero.
    """
    rows, columns = needed
    if buffer is None or buffer.ndim != 4:
        return like.new_zeros(rows, like.shape[1], columns + spare, like.shape[3])
    if buffer.shape[0] >= rows and buffer.shape[2] >= columns:
        return buffer
    rows = rows * 5 // 4 if rows > buffer.shape[0] else rows
    columns = max(columns * 5 // 4 if columns > buffer.shape[2] else columns, columns + spare)
    larger = like.new_zeros(rows, like.shape[1], columns, like.shape[3])
    larger[: live[0], :, : live[1]] = buffer[: live[0], :, : live[1]]
    return larger


class BatchKV(Cache):
    """Keys and values of a batch of rows that all end at the same column (left padding).

    Where a row starts is its own affair; the caller keeps it and masks what lies before.

    Args:
        layers: Of the model.
        spare: Columns of room to allocate at first beyond those that are filled.
    """

    def __init__(self, layers: int, spare: int) -> None:
        super().__init__(layers=[BatchLayer(spare) for _ in range(layers)])

    @property
    def columns(self) -> int:
        return int(self.layers[0].get_seq_length())

    def set_rows(self, first: int, rows: list[Layers]) -> None:
        """Writes sequences into the rows from `first` on, ending at the last column.

        The batch grows to the left where a sequence is longer than it is wide.
        """
        self.widen(max(layers[0][0].shape[1] for layers in rows), first)
        # Candidates of one prompt stand together: one copy writes them all.
        runs: list[tuple[tuple[int, int], Layers]] = []
        for _, run in groupby(enumerate(rows, first), key=lambda item: id(item[1])):
            places, same = zip(*run, strict=True)
            runs.append(((places[0], places[-1] + 1), same[0]))
        for index, layer in enumerate(self.layers):
            keys, values = rows[0][index]
            end = layer.columns
            layer.make_room(keys[None], values[None], first + len(rows), end, live=first)
            for (start, stop), layers in runs:
                keys, values = layers[index]
                layer.keys[start:stop, :, end - keys.shape[1] : end] = keys
                layer.values[start:stop, :, end - keys.shape[1] : end] = values

    def widen(self, columns: int, live: int) -> None:
        """Makes room on the left of the live rows for rows of this length."""
        if columns > self.columns:
            self.shift(columns - self.columns, live)

    def shift(self, by: int, live: int) -> None:
        """Moves the live rows `by` columns to the right, or to the left where it is negative."""
        for layer in self.layers:
            old, end = layer.columns, layer.columns + by
            if layer.keys is not None and live:
                layer.make_room(layer.keys, layer.values, live, end, live)
                for buffer in (layer.keys, layer.values):
                    kept = buffer[:live, :, max(0, -by) : old].clone()
                    buffer[:live, :, max(0, by) : end] = kept
                    buffer[:live, :, : max(0, by)] = 0
            layer.columns = end

    def shrink(self, live: int) -> None:
        """Gives back the buffers' memory beyond the live rows, once it is half of them."""
        for layer in self.layers:
            if live * 2 <= layer.keys.shape[0]:
                layer.keys = layer.keys[:live].clone()
                layer.values = layer.values[:live].clone()

    def move(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copies the rows `source` over the rows `target`."""
        for layer in self.layers:
            layer.keys[target, :, : layer.columns] = layer.keys[source, :, : layer.columns]
            layer.values[target, :, : layer.columns] = layer.values[source, :, : layer.columns]

    def row(self, index: int, start: int, end: int) -> Layers:
        """Views of the columns `start` to `end` of one row."""
        return [
            (layer.keys[index, :, start:end], layer.values[index, :, start:end])
            for layer in self.layers
        ]


def block_keys(ids: tuple[int, ...]) -> list[int]:
    """A hash for each whole block of the sequence, of the block and all that precedes it."""
    keys, key = [], 0
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        key = hash((key, ids[end - BLOCK : end]))
        keys.append(key)
    return keys


@dataclass(slots=True, eq=False)
class _Span:
    """Consecutive blocks that were computed together, after those of `parent`."""

    ids: tuple[int, ...]
    layers: Layers
    parent: "_Span | None"
    parent_tokens: int
    keys: list[int]
    children: int = 0


@dataclass(slots=True)
class Prefix:
    """A cached prefix: its length in tokens and the spans that hold it, each with its length."""

    tokens: int = 0
    spans: list[tuple[_Span, int]] = field(default_factory=list)

    def layers(self) -> Layers:
        """Its keys and values, `[heads, tokens, dim]` for each layer."""
        parts = [[(k[:, :n], v[:, :n]) for k, v in span.layers] for span, n in self.spans]
        if len(parts) == 1:
            return parts[0]
        return [
            (torch.cat([k for k, _ in pairs], dim=1), torch.cat([v for _, v in pairs], dim=1))
            for pairs in zip(*parts, strict=True)
        ]


class PrefixCache:
    """Keys and values of prefixes, in whole blocks, the least recently used dropped first.

    Args:
        capacity: Tokens it holds at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.tokens = 0
        self._blocks: dict[int, tuple[_Span, int]] = {}  # block key -> span, tokens of it
        self._recent: OrderedDict[int, _Span] = OrderedDict()

    def match(self, ids: tuple[int, ...], keys: list[int], limit: int) -> Prefix:
        """The longest cached prefix of `ids`, of at most `limit` tokens."""
        for blocks in range(min(limit // BLOCK, len(keys)), 0, -1):
            found = self._blocks.get(keys[blocks - 1])
            if found is None:
                continue
            prefix = self._collect(*found)
            # A hash may collide; the tokens decide.
            if tuple(t for span, n in prefix.spans for t in span.ids[:n]) == ids[: prefix.tokens]:
                return prefix
        return Prefix()

    def _collect(self, span: _Span | None, tokens: int) -> Prefix:
        spans: list[tuple[_Span, int]] = []
        while span is not None:
            spans.append((span, tokens))
            self._recent.move_to_end(id(span))
            tokens, span = span.parent_tokens, span.parent
        spans.reverse()
        return Prefix(sum(n for _, n in spans), spans)

    def insert(self, ids: tuple[int, ...], keys: list[int], prefix: Prefix, layers: Layers) -> None:
        """Keeps the whole blocks of `ids` beyond `prefix`.

        Args:
            ids: The sequence.
            keys: Its block keys.
            prefix: What `match` gave for it.
            layers: Keys and values of all its tokens.
        """
        whole = len(ids) // BLOCK * BLOCK
        fresh = keys[prefix.tokens // BLOCK : whole // BLOCK]
        if not fresh or fresh[-1] in self._blocks or whole - prefix.tokens > self.capacity:
            return
        parent, parent_tokens = prefix.spans[-1] if prefix.spans else (None, 0)
        if parent is not None and id(parent) not in self._recent:
            return  # dropped since it was matched
        cut = slice(prefix.tokens, whole)
        kept = [(k[:, cut].clone(), v[:, cut].clone()) for k, v in layers]
        span = _Span(ids[cut], kept, parent, parent_tokens, fresh)
        if parent is not None:
            parent.children += 1
        self._recent[id(span)] = span
        for index, key in enumerate(fresh, 1):
            self._blocks.setdefault(key, (span, index * BLOCK))
        self.tokens += len(span.ids)
        self._make_room()

    def clear(self) -> None:
        self.tokens = 0
        self._blocks.clear()
        self._recent.clear()

    def _make_room(self) -> None:
        while self.tokens > self.capacity:
            oldest = next(span for span in self._recent.values() if not span.children)
            del self._recent[id(oldest)]
            for key in oldest.keys:
                # Another span may have held the same block first, and be gone already.
                if key in self._blocks and self._blocks[key][0] is oldest:
                    del self._blocks[key]
            if oldest.parent is not None:
                oldest.parent.children -= 1
            self.tokens -= len(oldest.ids)
