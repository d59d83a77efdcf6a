"""What a model on transformers needs, whatever it is for: loading, and a thread of its own."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from huggingface_hub import constants
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging

from bestofn import concurrency
from bestofn.concurrency import place_in_run
from bestofn.engines.model_files import first_sentence
from bestofn.errors import EngineError
from bestofn.progress import redraws

# Options of a model that its tokenizer needs as well.
OF_BOTH = frozenset(
    "revision trust_remote_code token cache_dir local_files_only force_download".split()
)
UNLOADABLE = (OSError, ValueError, KeyError, AttributeError, ImportError, SafetensorError)


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        EngineError: it does not work.
    """
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        elif torch.backends.mps.is_available():
            device = "mps"
        else:
            device = "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"device {device!r} does not work ({reason}); `bestofn doctor` lists those that do"
        ) from error


def load(
    auto_class: Any, model: str, device: str, dtype: str, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """A model that is ready to run, and the names of weights that its files lack.

    Args:
        auto_class: Of transformers, such as `AutoModelForCausalLM`.
        model: A folder or a repository of the model hub.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: Of the weights; "auto" is float32 on the CPU and the model's own elsewhere.
        options: Passed to `from_pretrained`.

    Raises:
        EngineError: it cannot be loaded.
    """
    place = pick_device(device)
    if dtype == "auto" and place.type == "cpu":
        dtype = "float32"
    try:
        with _no_bars_in_logs():
            loaded, info = auto_class.from_pretrained(
                model, dtype=dtype, output_loading_info=True, **options
            )
            loaded = loaded.to(place).eval()
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"model {model!r} does not fit into the memory of {place}; "
            "load a smaller or a quantized one"
        ) from error
    except (*UNLOADABLE, TypeError, RuntimeError) as error:
        raise EngineError(
            f"cannot load model {model!r}: {first_sentence(error)}; "
            "give a model folder or the name of a repository"
        ) from error
    return loaded, sorted(info["missing_keys"])


def of_tokenizer(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's options that its tokenizer is loaded with."""
    return {name: value for name, value in options.items() if name in OF_BOTH}


@contextmanager
def _no_bars_in_logs() -> Iterator[None]:
    """Bars of transformers and the hub stay out of log files, unless the user has set them."""
    if redraws() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    weights, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()  # both
    try:
        yield
    finally:
        if weights:
            logging.enable_progress_bar()
        if downloads:
            enable_progress_bars()
        else:
            disable_progress_bars()


def context_of(loaded: PreTrainedModel) -> int:
    """Tokens that the model has positions for."""
    return int(getattr(loaded.config.get_text_config(), "max_position_embeddings", 1 << 30))


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A sequence of tokens to compute, and the future of the task that waits for it."""

    ids: tuple[int, ...]
    place: int = field(default_factory=place_in_run)
    future: Future[None] = field(default_factory=Future)
    created: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time since it was made."""
        return time.perf_counter() - self.created


R = TypeVar("R", bound=Request)


class Worker(threading.Thread, Generic[R]):
    """A thread that owns a model and runs requests until closed; a subclass says how, in `turn`.

    Args:
        model: The model.
        what: The model, as error messages name it.
        remedy: What a user can do when the device is out of memory.

    Attributes:
        waiting: Requests by their place in the run, then by arrival; `turn` takes out some.
    """

    def __init__(self, model: PreTrainedModel, what: str, remedy: str) -> None:
        super().__init__(name="bestofn-model", daemon=True)
        self.model = model
        self.what, self.remedy = what, remedy
        self.waiting: list[R] = []
        self._open: list[R] = []  # waiting and running
        self._inbox: list[R] = []
        self._wake = threading.Condition()
        self._closed = False
        self._pid = os.getpid()

    def turn(self) -> None:
        """Computes for a moment; what goes wrong fails all requests."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets what is running, whose requests have failed."""

    def submit(self, request: R) -> None:
        concurrency.require_process(self._pid, "a loaded model")
        with self._wake:
            if self._closed:
                raise EngineError(f"{self.what} is closed; load it again")
            self._inbox.append(request)
            self._wake.notify()

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
                self._open = [request for request in self._open if not request.future.done()]
                if not self._open:
                    self.reset()
        self.settle([*self._open, *self._inbox], EngineError(f"{self.what} is closed"))
        self.waiting.clear()
        self.reset()
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _receive(self) -> bool:
        """Waits for something to do; False once closed."""
        with self._wake:
            while not (self._closed or self._inbox or self._open):
                self._wake.wait()
            self._open += self._inbox
            arrived, self._inbox = self._inbox, []
        # Cancelled requests are done.
        waiting = [r for r in [*self.waiting, *arrived] if not r.future.done()]
        self.waiting = sorted(waiting, key=lambda request: request.place)
        return not self._closed

    @contextmanager
    def failing(self, requests: Sequence[R]) -> Iterator[None]:
        """What goes wrong within fails these requests."""
        try:
            yield
        except Exception as error:
            self.settle(requests, self._as_engine_error(error))

    def settle(self, requests: Sequence[R], error: EngineError | None = None) -> None:
        """Wakes the tasks that wait for these requests."""
        for request in requests:
            with suppress(InvalidStateError):  # it was cancelled
                if error is None:
                    request.future.set_result(None)
                else:
                    request.future.set_exception(error)

    def _as_engine_error(self, error: Exception) -> EngineError:
        if isinstance(error, EngineError):
            return error
        reason = first_sentence(error)
        if isinstance(error, torch.OutOfMemoryError):
            wrapped = EngineError(f"the device is out of memory; {self.remedy} ({reason})")
        else:
            wrapped = EngineError(f"the model failed: {type(error).__name__}: {reason}")
        wrapped.__cause__ = error
        return wrapped
