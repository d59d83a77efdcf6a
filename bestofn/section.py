"""What configurations are made of: sections of fields, and what is wrong with one in a sentence."""

import difflib
from collections.abc import Mapping
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
        text: Whether `\\n` in a value is a newline, and a comma separates no values of a list.
    """

    names: tuple[str, ...] = ()
    text: bool = False


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
        field = ".".join(map(str, error.errors()[0]["loc"])) or None
        raise ConfigError(f"{where}: {_sentence(kind, error, where)}", field) from None


def _sentence(kind: type[Section], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "missing":
        shown = f"--{key.replace('_', '-')}" if where == OPTIONS else f"the key {key!r}"
        return f"{shown} is missing" + (f": {NO_ENGINE}" if path[-1] == "engine" else "")
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return f"the key {key!r} is wrong: {said}" if key else said
    schema = kind.model_json_schema()
    known = [
        name
        for part in (schema, *schema.get("$defs", {}).values())
        for name in part.get("properties", ())
    ]
    near = difflib.get_close_matches(path[-1], known, 1, cutoff=0.5)
    return f"unknown key {key!r}" + "".join(f"; did you mean {name!r}?" for name in near)
