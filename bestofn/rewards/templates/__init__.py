"""Templates of the backward pass and of judges: from responses to the prompt that is asked of them.

What stays the same comes first, so that a prefix cache serves every request: the constant system
text, then the context or request, then the response and the constant cue. The instruction to be
inferred is no argument of an `InverseTemplate`, so it cannot reach the prefix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bestofn import identity
from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt

BUILT_IN = Path(__file__).parent

Target = Literal["user", "system"]
TARGET_NAMES: dict[Target, str] = {"user": "instruction", "system": "system prompt"}
Kind = Literal["pointwise", "pairwise", "listwise"]
PLACEHOLDERS: dict[Kind, tuple[str, ...]] = {
    "pointwise": ("prompt", "response"),
    "pairwise": ("prompt", "response1", "response2"),
    "listwise": ("prompt", "response_list"),
}
# The paper's files and the field that each asks for.
PAPER = {
    "inverse": ("FLIP", "INFERRED INSTRUCTION"),
    "pointwise": ("llmjudge_pointwise_rating", "SCORE"),
    "pairwise": ("llmjudge_pairwise_ranking", "BETTER_RESPONSE"),
    "listwise": ("llmjudge_listwise_ranking", "BEST_RESPONSE_INDEX"),
}


class _Template(BaseModel):
    """Two texts, each a `str.format` string with doubled literal braces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    """What the model is to do. Of an `InverseTemplate` it may hold `{target}`: "instruction" or
    "system prompt"."""
    user: str
    """What it is shown. Of an `InverseTemplate` header, `{response}` and cue; of a `JudgeTemplate`
    `{prompt}`, then `{response}`, `{response1}` and `{response2}`, or `{response_list}`."""

    @property
    def fingerprint(self) -> str:
        """What an identity says of the template."""
        return identity.fingerprint(self.model_dump_json(exclude_defaults=True))

    def _filled(self, system: str, user: str, texts: Mapping[str, str]) -> Prompt:
        try:
            system, user = system.format(**texts), user.format(**texts)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not a format string over {', '.join(texts)} ({error})") from None
        return Prompt((Message("system", system), Message("user", user)))


class InverseTemplate(_Template):
    """The texts of one backward pass."""

    context: str = "{context}\n\n"
    """Comes before `user` where other turns are known; holds `{context}`."""
    output: Literal["text", "json"]
    """Whether the whole answer is the instruction, or one field of a JSON object."""
    field: str | None = None
    """The field of the JSON object that holds the instruction."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.output == "json") != (self.field is not None):
            raise ValueError("`field` goes with `output: json`")
        if "\x00" not in self.fill("\x00", "\x01").messages[-1].content:
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
        texts = {"response": response, "context": context, "target": TARGET_NAMES[target]}
        return self._filled(self.system, (self.context if context else "") + self.user, texts)


class JudgeTemplate(_Template):
    """The texts of one question to a judge."""

    field: str
    """The field of the JSON answer that holds the verdict."""
    first_number: int = 1
    """The number of the first response of a list."""

    def fill(self, **texts: str) -> Prompt:
        """The question, with these texts in the places of that name.

        Raises:
            ValueError: the template has another placeholder.
        """
        return self._filled(self.system, self.user, texts)

    def listed(self, responses: Sequence[str]) -> str:
        """Numbered responses as one text."""
        return "\n\n".join(f"[{n}]\n{text}" for n, text in enumerate(responses, self.first_number))


def answer_schema(field: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a JSON object with a reasoning and, after it, a field with the result."""
    reasoning = "REASONING" if field.isupper() else "reasoning"
    return {
        "type": "object",
        "properties": {reasoning: {"type": "string"}, field: dict(value)},
        "required": [reasoning, field],
        "additionalProperties": False,
    }


def load_template(name: str | Path) -> InverseTemplate:
    """A built-in template by name, a YAML file of the same form, or a folder of the paper's files.

    Raises:
        ConfigError: there is no such template, or it is not well formed.
    """
    return _load(InverseTemplate, name, "inverse", {"output": "json"})[0]


def load_judge_template(name: str | Path, kind: Kind) -> JudgeTemplate:
    """A built-in template by name, a YAML file of the same form, or a folder of the paper's files.

    Raises:
        ConfigError: there is no such template, it is not well formed, or a placeholder is missing.
    """
    # The paper numbers responses from 0.
    template, path = _load(JudgeTemplate, name, kind, {"first_number": 0}, "judges")
    marks = {place: f"\x00{place}\x00" for place in PLACEHOLDERS[kind]}
    try:
        user = template.fill(**marks).messages[-1].content
    except ValueError as error:
        raise _malformed(path, error) from None
    for place, mark in marks.items():
        if mark not in user:
            raise _malformed(path, f"`user` has no {{{place}}}")
    return template


T = TypeVar("T", bound=_Template)


def _load(
    kind: type[T], name: str | Path, paper: str, of_paper: Mapping[str, Any], folder: str = ""
) -> tuple[T, Path]:
    """The template of a name, and its file; `of_paper` are the fields that go with paper files."""
    stem, field = PAPER[paper]
    files = [f"{stem}_{part}.prompt" for part in ("SYSTEM", "USER")]
    known = {file.stem: file for file in (BUILT_IN / folder).glob("*.yaml")}
    path = known.get(str(name), Path(name))
    if not path.exists():
        raise ConfigError(
            f"no template {str(name)!r}: name one of {', '.join(sorted(known))}, a YAML file, "
            f"or a folder with {' and '.join(files)}"
        )
    try:
        if path.is_file():
            fields = yaml.safe_load(path.read_text("utf-8"))
        else:
            system, user = ((path / file).read_text("utf-8") for file in files)
            fields = {"system": system, "user": user, "field": field, **of_paper}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        needs = "" if path.is_file() else f" (a folder needs {' and '.join(files)})"
        raise _malformed(path, f"{error}{needs}") from error
    if not isinstance(fields, dict):
        raise _malformed(path, f"it must be a mapping, not {type(fields).__name__}")
    try:
        return kind.model_validate(fields), path
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"`{part}`: " for part in first["loc"])
        raise _malformed(path, place + first["msg"].removeprefix("Value error, ")) from error


def _malformed(path: Path, reason: object) -> ConfigError:
    return ConfigError(f"template {path} is not well formed: {' '.join(str(reason).split())}")
