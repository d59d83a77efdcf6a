"""What loading a model with transformers needs, whatever it is for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


def pick_dtype(dtype: Any, device: torch.device) -> Any:
    """The type of the weights; "auto" is float32 on the CPU and the model's own elsewhere."""
    return "float32" if dtype == "auto" and device.type == "cpu" else dtype


@contextmanager
def told(model: str, device: torch.device) -> Iterator[None]:
    """Turns what goes wrong while a model is loaded in here into one sentence.

    Raises:
        EngineError: the model cannot be loaded.
    """
    try:
        with _no_bars_in_logs():
            yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"model {model!r} does not fit into the memory of {device}; "
            "load a smaller or a quantized one"
        ) from error
    except (*UNLOADABLE, TypeError, RuntimeError) as error:
        if isinstance(error, EngineError):
            raise
        raise EngineError(
            f"cannot load model {model!r}: {first_sentence(error)}; "
            "give a model folder or the name of a repository"
        ) from error


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
