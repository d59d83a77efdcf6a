"""A sequence-classification model on the CPU or one GPU: sequences in, logits out."""

import asyncio
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bestofn import concurrency
from bestofn.engines.classifiers import Logit, classifier_chat, classifier_config
from bestofn.engines.hf.loading import (
    context_of,
    of_tokenizer,
    pick_device,
    pick_dtype,
    told,
)
from bestofn.engines.model_files import first_sentence, locate
from bestofn.errors import ConfigError, EngineError
from bestofn.types import Usage


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A sequence, and who waits for its logit."""

    ids: Sequence[int]
    future: Future[float] = field(default_factory=Future)

    def is_near(self, other: "_Request") -> bool:
        """Whether little of a batch of the two would be padding."""
        return abs(len(self.ids) - len(other.ids)) <= 16 + len(other.ids) // 2


class TransformersClassifier:
    """A reward model on transformers.

    One thread runs the model. While it does requests gather; the next batch takes the oldest of
    them and those of similar length.

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
        self._model = _load(folder, pick_device(device), dtype, model_options)
        self.context = context_of(self._model)
        self.batch_size = batch_size
        self._pad_id = _pad_id(self._model)
        self._waiting: list[_Request] = []
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="bestofn-classifier")
        self._pid = os.getpid()

    async def logit(self, ids: Sequence[int]) -> Logit:
        concurrency.require_process(self._pid, "a loaded model")
        started = time.perf_counter()
        request = _Request(ids)
        with self._lock:
            self._waiting.append(request)
        try:
            # One call for each request, so that none is left waiting.
            self._worker.submit(self._run_batch)
        except RuntimeError as error:
            raise EngineError("the reward model is closed; load it again") from error
        value = await asyncio.wrap_future(request.future)
        seconds = time.perf_counter() - started
        return Logit(value, Usage(prompt_tokens=len(ids), seconds=seconds))

    def _run_batch(self) -> None:
        # Whoever was cancelled gets no place in a batch.
        batch = [r for r in self._next_batch() if r.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            logits = self._forward([request.ids for request in batch])
        except Exception as error:
            for request in batch:
                request.future.set_exception(_explained(error))
        else:
            for request, logit in zip(batch, logits, strict=True):
                request.future.set_result(logit)

    def _next_batch(self) -> list[_Request]:
        """Takes the oldest request and those nearest to it in length."""
        with self._lock:
            waiting = [request for request in self._waiting if not request.future.cancelled()]
            if waiting:
                oldest = waiting[0]
                near = [request for request in waiting if request.is_near(oldest)]
                near.sort(key=lambda request: abs(len(request.ids) - len(oldest.ids)))
                batch = near[: self.batch_size]
            else:
                batch = []
            taken = set(batch)
            self._waiting = [request for request in waiting if request not in taken]
            return batch

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The logits of sequences, which are padded on the right to the longest of them."""
        device = self._model.device
        longest = max(map(len, rows))
        pad = _unused_id(self._model, rows) if self._pad_id is None else self._pad_id
        # The model reads its logit off the last token that is no padding.
        self._model.config.get_text_config().pad_token_id = pad
        ids = [[*row, *[pad] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        logits = self._model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits
        values: list[float] = logits[:, 0].float().tolist()
        return values

    def close(self) -> None:
        """Frees the model once its batch is done; requests that wait fail."""
        if self._pid != os.getpid():
            return
        self._worker.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for request in waiting:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(EngineError("the reward model is closed"))
        self.__dict__.pop("_model", None)


def _load(
    model: str, device: torch.device, dtype: str, options: Mapping[str, Any]
) -> PreTrainedModel:
    classifier_config(model, **options)  # before its weights, which take long
    with told(model, device):
        loaded, info = AutoModelForSequenceClassification.from_pretrained(
            model, dtype=pick_dtype(dtype, device), output_loading_info=True, **options
        )
        if info["missing_keys"]:
            raise EngineError(
                f"model {model!r} has no weights for {', '.join(sorted(info['missing_keys']))}, "
                "which would be random numbers; give a reward model that was trained"
            )
        loaded.config.use_cache = False
        return loaded.to(device).eval()


def _pad_id(loaded: PreTrainedModel) -> int | None:
    """The model's padding token, which may be another one than its tokenizer's; None without."""
    config = loaded.config.get_text_config()
    pad = config.pad_token_id
    return pad if pad is not None and 0 <= pad < config.vocab_size else None


def _unused_id(loaded: PreTrainedModel, rows: Sequence[Sequence[int]]) -> int:
    """A token that none of the sequences has, to pad them with where a model has no own."""
    used = {token for row in rows for token in row}
    for token in range(loaded.config.get_text_config().vocab_size):
        if token not in used:
            return token
    raise EngineError("the model has no token to pad with; set batch_size to 1")


def _explained(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        explained = EngineError(
            f"the device is out of memory; lower batch_size or max_length ({first_sentence(error)})"
        )
    else:
        explained = EngineError(
            f"the model failed: {type(error).__name__}: {first_sentence(error)}"
        )
    explained.__cause__ = error
    return explained
