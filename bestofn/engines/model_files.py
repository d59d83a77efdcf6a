"""What an engine needs to know of a model's files, whoever runs the model."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from bestofn.errors import EngineError


def locate(model: str) -> str:
    """The folder or repository that a spec's model part names; "tiny" is the embedded one.

    Raises:
        EngineError: it is a path, and there is no such folder.
    """
    if model == "tiny":
        return str(files("bestofn.tiny") / "model")
    model = os.path.expanduser(model)  # noqa: PTH111 (a Path would drop a leading "./")
    path = Path(model)
    # A path that does not exist is no repository name to look up.
    if (path.is_absolute() or model.startswith(".")) and not path.is_dir():
        raise EngineError(f"cannot load model {model!r}: there is no such folder")
    return model


def default_template(folder: str) -> str:
    """The backward template that the model's own bestofn.json names, if it has one."""
    path = Path(folder) / "bestofn.json"
    if not path.is_file():
        return "reasoned"
    return str(json.loads(path.read_text("utf-8")).get("template", "reasoned"))


def first_sentence(error: BaseException) -> str:
    """The first line of an error's message, to stand inside another sentence."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


def load_tokenizer(model: str, **options: Any) -> Any:
    """The model's tokenizer.

    Raises:
        EngineError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, **options)
    except Exception as error:  # a damaged file can raise anything
        raise EngineError(
            f"cannot load the tokenizer of {model!r}: {first_sentence(error)}"
        ) from error
