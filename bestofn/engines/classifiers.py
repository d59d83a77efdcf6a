"""The Classifier protocol, what a scalar reward asks for its numbers, and `load_classifier`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bestofn.engines.chat import ChatFormat
from bestofn.engines.model_files import first_sentence, load_tokenizer
from bestofn.errors import EngineError
from bestofn.registry import construct, find
from bestofn.types import Usage


@dataclass(frozen=True, slots=True)
class Logit:
    """A model's raw output for one sequence, and what it cost."""

    value: float
    usage: Usage


class Classifier(Protocol):
    """A sequence-classification model with one label. Calls run concurrently and share batches."""

    chat: ChatFormat
    """The model's own view of conversations."""
    context: int
    """Tokens that the model takes."""

    async def logit(self, ids: Sequence[int]) -> Logit:
        """The model's output for a sequence of at most `context` tokens.

        Cancelling the task drops the request.

        Raises:
            EngineError: the model failed.
        """
        ...

    def close(self) -> None:
        """Frees what the model holds; requests in flight fail."""
        ...


def load_classifier(model: str, backend: str, **options: Any) -> Classifier:
    """The model on one of the backends.

    Args:
        model: A folder or a repository of the model hub.
        backend: "transformers" or "vllm".
        options: Passed to the backend, see `TransformersClassifier` and `VLLMClassifier`.

    Raises:
        ConfigError: there is no such backend, or it does not take these options.
        EngineError: the model cannot be loaded, has more than one label or no chat template.
    """
    kind, _ = find("backend", backend)
    loaded: Classifier = construct(f"the backend {backend!r}", kind, [model], options)
    return loaded


def classifier_config(model: str, **options: Any) -> Any:
    """The configuration of a model whose output is a single number, as transformers reads it.

    Args:
        model: A folder or a repository of the model hub.
        options: Those that it is loaded with.

    Raises:
        EngineError: it cannot be read, or has several labels, as it has by default for a language
            model without a head.
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
        kinds = ", ".join(config.architectures or [])
        headless = kinds and "Classification" not in kinds
        why = f" (it is a {kinds}, without a classification head)" if headless else ""
        raise EngineError(
            f"model {model!r} has {config.num_labels} labels{why} and a scalar reward needs one; "
            "give a sequence-classification model that was trained with num_labels=1"
        )
    return config


def classifier_chat(model: str, **options: Any) -> ChatFormat:
    """How the model was shown conversations in training.

    Args:
        model: A folder or a repository of the model hub.
        options: Of its tokenizer.

    Raises:
        EngineError: the tokenizer cannot be loaded, or has no chat template.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise EngineError(f"cannot load model {model!r}: the folder has no config.json")
    chat = ChatFormat(load_tokenizer(model, **options))
    if not chat.has_template:
        raise EngineError(
            f"the tokenizer of {model!r} has no chat template; save the one that the reward model "
            "was trained with beside it, as chat_template.jinja"
        )
    return chat
