"""A model's files and tokenizer; reward models, whose output is a single number."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bestofn.engines.chat import ChatFormat
from bestofn.errors import EngineError
from bestofn.registry import construct, find
from bestofn.types import Usage

SMALL = 1e9  # parameters; the models of arXiv 2602.13551 have about as many, or more


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


def default_template(model: str, config: Mapping[str, Any]) -> str:
    """The backward template that suits a model of a folder or of the hub, of this configuration.

    It is the one that the model's own bestofn.json names, else one that a model of its size can
    write: those of less than `SMALL` parameters hardly write JSON.
    """
    own = json_of(model, "bestofn.json") or {}
    if "template" in own:
        return str(own["template"])
    size = _parameters(config.get("text_config") or config)
    return "reasoned" if size is None or size >= SMALL else "opened"


def json_of(model: str, name: str, args: Mapping[str, Any] = {}) -> dict[str, Any] | None:
    """A model's own file, None where it has none or is not on this machine.

    Of the arguments that it is loaded with those count that say from where.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    path: Any = Path(model) / name
    if not Path(model).is_dir():
        cache, revision = args.get("cache_dir") or args.get("download_dir"), args.get("revision")
        with suppress(HFValidationError, OSError):
            path = try_to_load_from_cache(model, name, cache, revision)
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _parameters(config: Mapping[str, Any]) -> float | None:
    """About how many parameters a decoder of this configuration has, None if it cannot be told."""
    try:
        width, layers, words = (
            config[name] for name in ("hidden_size", "num_hidden_layers", "vocab_size")
        )
        heads = config["num_attention_heads"]
        groups = config.get("num_key_value_heads") or heads
        head = config.get("head_dim") or width // heads
        inner = config.get("moe_intermediate_size") or config["intermediate_size"]
        experts = config.get("num_experts") or config.get("num_local_experts") or 1
        layer = 2 * width * head * (heads + groups) + 3 * width * inner * experts
        embeddings = 1 if config.get("tie_word_embeddings", True) else 2
        return float(layers * layer + embeddings * words * width)
    except (KeyError, TypeError, ZeroDivisionError):
        return None


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
