"""Templates of the backward pass: from a response to the prompt that asks for its instruction.

The order is fixed so that a prefix cache serves every request: constant system text, context,
header, the response, the constant cue. The instruction to be inferred is no argument of
anything here, so it cannot reach the prefix.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt

BUILT_IN = Path(__file__).parent
PAPER_FILES = ("FLIP_SYSTEM.prompt", "FLIP_USER.prompt")
PAPER_FIELD = "INFERRED INSTRUCTION"

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
        if self.field is None:
            return None
        # In the order in which they are written: the reasoning comes first.
        keys = dict.fromkeys(["REASONING" if self.field.isupper() else "reasoning", self.field])
        return {
            "type": "object",
            "properties": {key: {"type": "string"} for key in keys},
            "required": list(keys),
            "additionalProperties": False,
        }

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


def load_template(name: str | Path) -> InverseTemplate:
    """A built-in template by name, a YAML file of the same form, or a folder of the paper's files.

    Raises:
        ConfigError: there is no such template, or it is not well formed.
    """
    built_in = {file.stem: file for file in BUILT_IN.glob("*.yaml")}
    path = built_in.get(str(name), Path(name))
    if path.is_dir():
        return _load_paper_files(path)
    if not path.is_file():
        raise ConfigError(
            f"no template {str(name)!r}: name one of {', '.join(sorted(built_in))}, a YAML file, "
            f"or a folder with {' and '.join(PAPER_FILES)}"
        )
    try:
        return InverseTemplate.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"template {path} is not well formed: {error}") from error


def _load_paper_files(folder: Path) -> InverseTemplate:
    try:
        system, user = ((folder / name).read_text("utf-8") for name in PAPER_FILES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"template folder {folder} has no {Path(error.filename).name}; "
            f"it needs {' and '.join(PAPER_FILES)}"
        ) from None
    try:
        return InverseTemplate(system=system, user=user, output="json", field=PAPER_FIELD)
    except ValidationError as error:
        raise ConfigError(f"template folder {folder} is not well formed: {error}") from error
