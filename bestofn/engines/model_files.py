"""A model's files and tokenizer; reward models, whose output is a single number."""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bestofn.engines.chat import ChatFormat
from bestofn.errors import EngineError
from bestofn.registry import construct, find
from bestofn.types import Usage


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


class Logit(NamedTuple):
    """A reward model's raw output for one sequence, and what it cost."""

    value: float
    usage: Usage


class Classifier(Protocol):
    """A model with one label, which takes sequences of at most `context` tokens.

    Calls run concurrently and share batches; closing fails those in flight.
    """

    chat: ChatFormat
    context: int

    async def logit(self, ids: Sequence[int]) -> Logit: ...

    def close(self) -> None: ...


def load_classifier(model: str, backend: str, **options: Any) -> Classifier:
    """The model on one of the backends, "transformers" or "vllm", which takes the options.

    Raises:
        ConfigError: there is no such backend, or it does not take these options.
        EngineError: the model cannot be loaded, has more than one label or no chat template.
    """
    kind, _ = find("backend", backend)
    loaded: Classifier = construct(f"the backend {backend!r}", kind, [model], options)
    return loaded


def classifier_files(
    model: str, options: Mapping[str, Any], tokenizer: str, tokenizer_options: Mapping[str, Any]
) -> tuple[Any, ChatFormat]:
    """A reward model's configuration, and how it was shown conversations in training.

    Raises:
        EngineError: one of them cannot be loaded, the model has several labels, as a language model
            without a head has by default, or the tokenizer has no chat template.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(
            f"cannot load model {model!r}: {first_sentence(error)}; "
            "give a model folder or the name of a repository"
        ) from error
    if config.num_labels != 1:
        raise EngineError(
            f"model {model!r} has {config.num_labels} labels and a scalar reward needs one (it is "
            f"a {', '.join(config.architectures or ['model'])}); give a sequence-classification "
            "model that was trained with num_labels=1"
        )
    chat = ChatFormat(load_tokenizer(tokenizer, **tokenizer_options))
    if not chat.has_template:
        raise EngineError(
            f"the tokenizer of {model!r} has no chat template; save the one that the reward model "
            "was trained with beside it, as chat_template.jinja"
        )
    return config, chat
