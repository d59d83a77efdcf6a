"""What configurations are made of: sections of fields, and what is wrong with one in a sentence."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bestofn.errors import ConfigError

S = TypeVar("S", bound="Section")

OPTIONS = "the options"
"""Where the fields of a command come from."""
NO_ENGINE = (
    "no model is named; give --engine vllm:MODEL, hf:MODEL or openai:URL#MODEL, or --engine tiny "
    "for a try with the embedded toy model"
)


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field is given on the command line, if not by its own name and as it is.

    Attributes:
        names: The option's names, by default the field's.
        whole: Whether each value of a list is taken as it is; else commas separate values.
        text: Whether `\\n` in a value is a newline.
        dotted: Whether names of a mapping may be those of a reward's options, REWARD.NAME.
    """

    names: tuple[str, ...] = ()
    whole: bool = False
    text: bool = False
    dotted: bool = False


class Section(BaseModel):
    """Some fields that belong together; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def checked(kind: type[S], fields: Mapping[str, Any], where: str) -> S:
    """The section with these fields.

    Raises:
        ConfigError: one of them is wrong; the message starts with `where`.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(kind, error, where)}") from None


def _sentence(kind: type[Section], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "missing":
        return _missing(key, where)
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return f"the key {key!r} is wrong: {said}" if key else said
    known = _fields_at(kind, path[:-1])
    near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _missing(key: str, where: str) -> str:
    if key.rpartition(".")[2] == "engine":
        return NO_ENGINE if key == "engine" else f"the key {key!r} is missing: {NO_ENGINE}"
    return (
        f"--{key.replace('_', '-')} is missing"
        if where == OPTIONS
        else f"the key {key!r} is missing"
    )


def _fields_at(kind: type[Section], path: Sequence[str]) -> list[str]:
    """The names of a section's fields, the section being found by the keys that lead to it."""
    for part in path:
        if part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))[0]
            if isinstance(inner, type) and issubclass(inner, Section):
                kind = inner
    return list(kind.model_fields)
