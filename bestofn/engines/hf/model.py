"""What a model on transformers needs, whatever it is for: loading, and a thread of its own."""

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Generic, TypeVar

import torch
from huggingface_hub import constants
from transformers import PreTrainedModel

from bestofn import concurrency
from bestofn.engines.model_files import first_sentence
from bestofn.errors import EngineError
from bestofn.progress import redraws

# Options of a model that its tokenizer needs as well.
OF_BOTH = frozenset(
    "revision trust_remote_code token cache_dir local_files_only force_download".split()
)


def load(
    auto_class: Any, model: str, device: str, dtype: str, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """A model that is ready to run, and the names of weights that its files lack.

    Raises:
        EngineError: it cannot be loaded, or the device does not work.
    """
    if device == "auto":
        device = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else device
    # Bars of transformers and the hub stay out of log files, unless the user has set them.
    shown = redraws() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None
    try:
        place = torch.empty(0, device=device).device
        if dtype == "auto" and place.type == "cpu":
            dtype = "float32"
        with nullcontext() if shown else redirect_stderr(StringIO()):
            loaded, info = auto_class.from_pretrained(
                model, dtype=dtype, output_loading_info=True, **options
            )
        return loaded.to(place).eval(), sorted(info["missing_keys"])
    except Exception as error:  # a damaged file can raise anything
        raise EngineError(
            f"cannot load model {model!r}: {first_sentence(error)}; give the folder or repository "
            f"of one that fits the device {device!r} (`bestofn doctor` lists those that work)"
        ) from error


def of_tokenizer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's options that its tokenizer is loaded with."""
    return {name: value for name, value in options.items() if name in OF_BOTH}


def context_of(loaded: PreTrainedModel) -> int:
    """Tokens that the model has positions for."""
    return int(getattr(loaded.config.get_text_config(), "max_position_embeddings", 1 << 30))


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A sequence of tokens to compute, and the future of the task that waits for it."""

    ids: tuple[int, ...]
    taken: bool = False  # whether it is being computed
    place: int = field(default_factory=concurrency.place_in_run)
    future: Future[Any] = field(default_factory=Future)
    created: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.created


R = TypeVar("R", bound=Request)


class Worker(threading.Thread, Generic[R]):
    """A thread that owns a model and runs requests until closed; a subclass says how, in `turn`.

    Args:
        model: The model.
        what: The model, as error messages name it.
        remedy: What a user can do when the device is out of memory.
    """

    def __init__(self, model: PreTrainedModel, what: str, remedy: str) -> None:
        super().__init__(name="bestofn-model", daemon=True)
        self.model = model
        self.what, self.remedy = what, remedy
        self._open: list[R] = []
        self._inbox: list[R] = []
        self._wake = threading.Condition()
        self._closed = False
        self._pid = os.getpid()

    @property
    def unfinished(self) -> int:
        """Requests that are not done."""
        return sum(not request.future.done() for request in [*self._open, *self._inbox])

    @property
    def waiting(self) -> list[R]:
        """Requests that are not being computed, by their place in the run, then by arrival."""
        return [r for r in self._open if not (r.taken or r.future.done())]

    def turn(self) -> None:
        """Computes for a moment, with some of those that wait; an error fails all requests."""
        raise NotImplementedError

    def reset(self) -> None:
        """Frees what is kept of requests that are done."""

    async def run_request(self, request: R) -> Any:
        """What a request is settled with; cancelling the task drops it.

        Raises:
            EngineError: the model failed, or is closed.
        """
        concurrency.require_process(self._pid, "a loaded model")
        with self._wake:
            self.require_alive()
            self._inbox.append(request)
            self._wake.notify()
        return await asyncio.wrap_future(request.future)

    def require_alive(self) -> None:
        """Raises EngineError if it is closed."""
        if self._closed:
            raise EngineError(f"{self.what} is closed; load it again")

    def close(self) -> None:
        """Ends the thread after its turn; open requests fail."""
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
                with self.failing(self._open):
                    self.turn()
        self.settle([*self._open, *self._inbox], EngineError(f"{self.what} is closed"))
        self._open.clear()
        self.reset()
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _receive(self) -> bool:
        """Waits for something to do; False once closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._inbox or self._open)
            known = [*self._open, *self._inbox]
            self._inbox = []
        # Cancelled requests are done.
        left = [request for request in known if not request.future.done()]
        self._open = sorted(left, key=lambda request: request.place)
        return not self._closed

    @contextmanager
    def failing(self, requests: Iterable[R]) -> Iterator[None]:
        """What goes wrong within fails these requests."""
        try:
            yield
        except Exception as error:
            failure = error
            if isinstance(error, torch.OutOfMemoryError):
                reason = f"the device is out of memory; {self.remedy} ({first_sentence(error)})"
                failure = EngineError(reason)
            elif not isinstance(error, EngineError):
                reason = f"{type(error).__name__}: {first_sentence(error)}"
                failure = EngineError(f"the model failed: {reason}")
            self.settle(requests, failure)

    def settle(self, requests: Iterable[R], outcome: Any = None) -> None:
        """Wakes the tasks that wait for these requests, with a result or an error."""
        for request in requests:
            with suppress(InvalidStateError):  # it was cancelled
                if isinstance(outcome, EngineError):
                    request.future.set_exception(outcome)
                else:
                    request.future.set_result(outcome)
