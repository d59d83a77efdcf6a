"""A sequence-classification model on the CPU or one GPU: sequences in, logits out."""

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bestofn.engines.classifiers import Logit, classifier_chat, classifier_config
from bestofn.engines.hf.model import Request, Worker, context_of, load, of_tokenizer
from bestofn.engines.model_files import locate
from bestofn.errors import ConfigError, EngineError
from bestofn.types import Usage


class TransformersClassifier:
    """A reward model on transformers.

    While it runs a batch requests gather; the next batch takes the oldest of them and those of
    similar length.

    Args:
        model: A folder or a repository of the model hub.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: "auto" is float32 on the CPU and the model's own elsewhere.
        batch_size: Sequences of one forward pass at most.
        model_options: Passed to `AutoModelForSequenceClassification.from_pretrained`.

    Raises:
        ConfigError: `batch_size` is below 1.
        EngineError: the model cannot be loaded, has more than one label, no weights for its head,
            or no chat template.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 16,
        **model_options: Any,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        folder = locate(model)
        self.chat = classifier_chat(folder, **of_tokenizer(model_options))
        classifier_config(folder, **model_options)  # before its weights, which take long
        auto = AutoModelForSequenceClassification
        loaded, missing = load(auto, folder, device, dtype, model_options)
        if missing:
            raise EngineError(
                f"model {folder!r} has no weights for {', '.join(missing)}, "
                "which would be random numbers; give a reward model that was trained"
            )
        self.context = context_of(loaded)
        self._worker = _Worker(loaded, batch_size)
        self._worker.start()
        weakref.finalize(self, self._worker.close)

    async def logit(self, ids: Sequence[int]) -> Logit:
        request = _Request(ids=tuple(ids))
        self._worker.submit(request)
        await asyncio.wrap_future(request.future)
        return Logit(request.logit, Usage(prompt_tokens=len(ids), seconds=request.seconds))

    def close(self) -> None:
        """Frees the model once its batch is done; requests that wait fail."""
        self._worker.close()


@dataclass(slots=True, eq=False, kw_only=True)
class _Request(Request):
    logit: float = nan


class _Worker(Worker[_Request]):
    """Runs the model on the oldest request and those nearest to it in length."""

    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        super().__init__(model, "the reward model", "lower batch_size or max_length")
        model.config.use_cache = False
        self.batch_size = batch_size
        config = model.config.get_text_config()
        # The model's padding token, which may be another one than its tokenizer's.
        pad = config.pad_token_id
        self._pad_id = pad if pad is not None and 0 <= pad < config.vocab_size else None

    def turn(self) -> None:
        if not self.waiting:  # all were cancelled
            return
        batch = self._next_batch()
        with self.failing(batch):
            logits = self.forward([request.ids for request in batch])
            for request, logit in zip(batch, logits, strict=True):
                request.logit = logit
            self.settle(batch)

    def _next_batch(self) -> list[_Request]:
        length = len(self.waiting[0].ids)

        def distance(request: _Request) -> int:
            return abs(len(request.ids) - length)

        # Little of a batch is padding.
        near = [request for request in self.waiting if distance(request) <= 16 + length // 2]
        batch = sorted(near, key=distance)[: self.batch_size]
        taken = set(batch)
        self.waiting = [request for request in self.waiting if request not in taken]
        return batch

    def forward(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logits of sequences, which are padded on the right to the longest of them."""
        device = self.model.device
        longest = max(map(len, rows))
        pad = self._unused_id(rows) if self._pad_id is None else self._pad_id
        # The model reads its logit off the last token that is no padding.
        self.model.config.get_text_config().pad_token_id = pad
        ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        logits = self.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits
        values: list[float] = logits[:, 0].float().tolist()
        return values

    def _unused_id(self, rows: Sequence[Sequence[int]]) -> int:
        """A token that none of the sequences has, to pad them with where a model has no own."""
        used = {token for row in rows for token in row}
        for token in range(self.model.config.get_text_config().vocab_size):
            if token not in used:
                return token
        raise EngineError("the model has no token to pad with; set batch_size to 1")
