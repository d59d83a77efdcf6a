"""Templates of the backward pass: from a response to the prompt that asks for its instruction.

The order is fixed so that a prefix cache serves every request: constant system text, context,
header, the response, the constant cue. The instruction to be inferred is no argument of
anything here, so it cannot reach the prefix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt

BUILT_IN = Path(__file__).parent
PAPER_FILES = ("FLIP_SYSTEM.prompt", "FLIP_USER.prompt")
PAPER_FIELD = "INFERRED INSTRUCTION"

T = TypeVar("T", bound=BaseModel)
Target = Literal["user", "system"]
TARGET_NAMES: dict[Target, str] = {"user": "instruction", "system": "system prompt"}


class InverseTemplate(BaseModel):
    """The texts of one backward pass, each a `str.format` string with doubled literal braces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    """What the model is to do. May hold `{target}`: "instruction" or "system prompt"."""
    user: str
    """Header, `{response}` and cue."""
    context: str = "{context}\n\n"
    """Stands before `user` where other turns are known; holds `{context}`."""
    output: Literal["text", "json"]
    """Whether the whole answer is the instruction, or one field of a JSON object."""
    field: str | None = None
    """The field of the JSON object that holds the instruction."""

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.output == "json") != (self.field is not None):
            raise ValueError("`field` goes with `output: json`")
        filled = self.fill("\x00", "\x01", "user")
        if "\x00" not in filled.messages[-1].content:
            raise ValueError("`user` has no {response}")
        return self

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """What the answer is to be, None where it is plain text."""
        return None if self.field is None else answer_schema(self.field, {"type": "string"})

    def fill(self, response: str, context: str = "", target: Target = "user") -> Prompt:
        """The backward prompt for one response.

        Args:
            response: The text to invert.
            context: The known rest of the conversation, as one text; empty if there is none.
            target: Which message is to be inferred.
        """
        names = {"response": response, "context": context, "target": TARGET_NAMES[target]}
        try:
            known = self.context.format(**names) if context else ""
            user = Message("user", known + self.user.format(**names))
            system = Message("system", self.system.format(**names))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"not a format string over response, context and target ({error})"
            ) from None
        return Prompt((system, user))


def answer_schema(field: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a JSON object with a reasoning and, after it, a field with the result."""
    properties = {"REASONING" if field.isupper() else "reasoning": {"type": "string"}}
    properties |= {field: dict(value)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def load_template(name: str | Path) -> InverseTemplate:
    """A built-in template by name, a YAML file of the same form, or a folder of the paper's files.

    Raises:
        ConfigError: there is no such template, or it is not well formed.
    """
    path = find_template(name, BUILT_IN, PAPER_FILES)
    if path.is_file():
        return read_template(InverseTemplate, path)
    system, user = read_paper_files(path, PAPER_FILES)
    fields = {"system": system, "user": user, "output": "json", "field": PAPER_FIELD}
    return checked_template(InverseTemplate, fields, path)


def find_template(name: str | Path, built_in: Path, paper_files: Sequence[str]) -> Path:
    """The file of a built-in template, else the file or folder of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {file.stem: file for file in built_in.glob("*.yaml")}
    path = known.get(str(name), Path(name))
    if not path.exists():
        raise ConfigError(
            f"no template {str(name)!r}: name one of {', '.join(sorted(known))}, a YAML file, "
            f"or a folder with {' and '.join(paper_files)}"
        )
    return path


def read_template(kind: type[T], path: Path) -> T:
    """The template in a YAML file.

    Raises:
        ConfigError: it is not well formed.
    """
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"template {path} is not well formed: {said}") from error
    return checked_template(kind, fields, path)


def checked_template(kind: type[T], fields: Any, path: Path) -> T:
    """A template of these fields.

    Raises:
        ConfigError: it is not well formed.
    """
    begun = f"template {path} is not well formed"
    if not isinstance(fields, dict):
        raise ConfigError(f"{begun}: it must be a mapping, not {type(fields).__name__}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        said = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise ConfigError(f"{begun}: {place}{said}") from error


def read_paper_files(folder: Path, names: Sequence[str]) -> tuple[str, str]:
    """The system and the user text in a folder of the paper's files.

    Raises:
        ConfigError: one of them is not there.
    """
    try:
        system, user = ((folder / name).read_text("utf-8") for name in names)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"template folder {folder} cannot be used ({error}); it needs {' and '.join(names)}"
        ) from None
    return system, user
