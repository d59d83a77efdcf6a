"""Attention over segments of different lengths in one forward pass.

Rows that are decoded together differ in length. In one rectangle the short ones would attend to as
many columns as the longest has, nearly all of them padding. So rows of similar length form a
segment with keys and values of its own; a forward pass runs over the rows of all segments at once,
and only attention goes segment by segment.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bestofn.engines.hf.kv import BatchKV

NAME = "bestofn"
"""The attention implementation that a model of this engine is set to."""


class Segment(Protocol):
    """Rows of similar length. `starts` is the first column of each, int64 `[rows]`."""

    kv: BatchKV
    starts: torch.Tensor


class Step(Cache):
    """The keys and values of one decoding step: those of all segments, in order of their rows."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__(layers=segments[0].kv.layers)
        self.segments = segments
        self.bounds = [0]
        for segment in segments:
            self.bounds.append(self.bounds[-1] + len(segment.starts))
        self._masks: dict[tuple[int, int | None], torch.Tensor | None] = {}

    def parts(self) -> Iterator[tuple[int, Segment, slice]]:
        """Number, segment, and its rows within the batch."""
        for number, segment in enumerate(self.segments):
            yield number, segment, slice(self.bounds[number], self.bounds[number + 1])

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for _, segment, rows in self.parts():
            segment.kv.layers[layer_idx].update(key_states[rows], value_states[rows])
        return key_states, value_states

    def attend(self, module: torch.nn.Module, query: torch.Tensor, options: Any) -> torch.Tensor:
        """Attention of each row's new token to its own segment."""
        outputs = []
        for number, segment, rows in self.parts():
            layer = segment.kv.layers[module.layer_idx]
            keys, values = layer.filled(rows.stop - rows.start)
            mask = self._mask(number, layer.columns, options.get("sliding_window"))
            output, _ = sdpa_attention_forward(module, query[rows], keys, values, mask, **options)
            outputs.append(output)
        return torch.cat(outputs)

    def _mask(self, number: int, columns: int, window: int | None) -> torch.Tensor | None:
        """Which columns a row may see, bool `[rows, 1, 1, columns]`; None if all of them."""
        key = number, window
        if key not in self._masks:
            starts = self.segments[number].starts
            if window is not None:
                starts = starts.clamp_min(columns - window)
            places = torch.arange(columns, device=starts.device)
            seen = (places >= starts[:, None])[:, None, None]
            self._masks[key] = seen if bool(starts.any()) else None
        return self._masks[key]


_step: ContextVar[Step | None] = ContextVar("step", default=None)


@contextmanager
def decoding(step: Step) -> Iterator[None]:
    """Within it, forward passes attend by segments."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    step = _step.get()
    if step is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output, None
    return step.attend(module, query, options), None


def _mask(*args: Any, **options: Any) -> Any:
    return None if _step.get() is not None else sdpa_mask(*args, **options)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
