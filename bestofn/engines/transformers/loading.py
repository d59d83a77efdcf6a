"""What loading a model with transformers needs, whatever it is for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from bestofn.engines.model_files import first_sentence
from bestofn.errors import EngineError

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


def context_of(loaded: PreTrainedModel) -> int:
    """Tokens that the model has positions for."""
    return int(getattr(loaded.config.get_text_config(), "max_position_embeddings", 1 << 30))
