"""Templates of the backward pass and of judges: from responses to the prompt that is asked of them.

What stays the same comes first, so that a prefix cache serves every request: the constant system
text, then the context or request, then the response and the constant cue. The instruction to be
inferred is no argument of an `InverseTemplate`, so it cannot reach the prefix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import model_validator

from bestofn import identity
from bestofn.errors import ConfigError
from bestofn.section import Section, checked
from bestofn.types import Message, Prompt

BUILT_IN = Path(__file__).with_suffix(".yaml")

Target = Literal["user", "system"]
TARGET_NAMES: dict[Target, str] = {"user": "instruction", "system": "system prompt"}
Kind = Literal["pointwise", "pairwise", "listwise"]
# By kind: the places that a template needs, the paper's files and the field that they ask for.
FORMS = {
    "inverse": ("response context", "FLIP", "INFERRED INSTRUCTION"),
    "pointwise": ("prompt response", "llmjudge_pointwise_rating", "SCORE"),
    "pairwise": ("prompt response1 response2", "llmjudge_pairwise_ranking", "BETTER_RESPONSE"),
    "listwise": ("prompt response_list", "llmjudge_listwise_ranking", "BEST_RESPONSE_INDEX"),
}


class _Template(Section):
    """Two texts, each a `str.format` string with doubled literal braces."""

    system: str
    """What the model is to do; of an `InverseTemplate` it may hold `{target}`."""
    user: str
    """What it is shown. Of an `InverseTemplate` header, `{response}` and cue; of a `JudgeTemplate`
    `{prompt}`, then `{response}`, `{response1}` and `{response2}`, or `{response_list}`."""

    @property
    def fingerprint(self) -> str:
        """What an identity says of the template."""
        return identity.fingerprint(self.model_dump_json(exclude_defaults=True))

    def _fill(self, texts: Mapping[str, str], before: str = "") -> Prompt:
        system, user = self.system.format(**texts), (before + self.user).format(**texts)
        return Prompt((Message("system", system), Message("user", user)))


class InverseTemplate(_Template):
    """The texts of one backward pass."""

    context: str = "{context}\n\n"
    """Comes before `user` where other turns are known; holds `{context}`."""
    output: Literal["text", "json"]
    """Whether the whole answer is the instruction, or one field of a JSON object."""
    field: str | None = None
    """The field of the JSON object that holds the instruction."""
    opening: str = ""
    """Begins the answer, in the assistant's own turn; may hold `{target}`."""
    closing: str = ""
    """Ends the instruction, such as the quote that `opening` opened; nothing behind it is read."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.output == "json") != (self.field is not None):
            raise ValueError("`field` goes with `output: json`")
        if self.output == "json" and (self.opening or self.closing):
            raise ValueError("`opening` and `closing` go with `output: text`")
        return self

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """What the answer is to be, None where it is plain text."""
        return None if self.field is None else answer_schema(self.field, {"type": "string"})

    def fill(self, response: str, context: str = "", target: Target = "user") -> Prompt:
        """The backward prompt for one response, in the known rest of its conversation."""
        texts = {"response": response, "context": context, "target": TARGET_NAMES[target]}
        asked = self._fill(texts, self.context if context else "")
        if not self.opening:
            return asked
        begun = Message("assistant", self.opening.format(target=texts["target"]))
        return Prompt((*asked.messages, begun))


class JudgeTemplate(_Template):
    """The texts of one question to a judge."""

    field: str | None = None
    """The field of the JSON answer that holds the verdict."""
    answers: tuple[str, ...] = ()
    """Instead of a field: all that the judge may answer, whose probabilities are the verdict.
    Numbers are grades; of two words the first one speaks for the response, or for the first."""
    first_number: int = 1
    """The number of the first response of a list."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.field is None) != bool(self.answers):
            raise ValueError("a judge's template has either `field` or `answers`")
        numbers = all(map(str.isdecimal, self.answers))
        if self.answers and (
            len(set(self.answers)) < max(2, len(self.answers))
            or (len(self.answers) > 2 and not numbers)
        ):
            raise ValueError("`answers` are two different words, or different numbers")
        return self

    def fill(self, **texts: str) -> Prompt:
        """The question, with these texts in the places of that name."""
        return self._fill(texts)

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
    """A built-in template by name, a YAML file of its form, or a folder of the paper's files."""
    return _load(InverseTemplate, name, "inverse", output="json")


def load_judge_template(name: str | Path, kind: Kind) -> JudgeTemplate:
    """As `load_template`, for a kind of judge."""
    return _load(JudgeTemplate, name, kind, first_number=0)  # the paper counts from 0


T = TypeVar("T", InverseTemplate, JudgeTemplate)


def _load(form: type[T], name: str | Path, kind: str, **of_paper: Any) -> T:
    """The template of a name; `of_paper` are the fields that go with the paper's files."""
    places, stem, field = FORMS[kind]
    files = [f"{stem}_{part}.prompt" for part in ("SYSTEM", "USER")]
    group = "inverse" if kind == "inverse" else "judges"
    path, where = Path(name), f"the template {name}"
    try:
        known = yaml.safe_load(BUILT_IN.read_text("utf-8"))[group]
        if str(name) in known:
            fields = known[str(name)]
        elif path.is_dir():
            system, user = ((path / file).read_text("utf-8") for file in files)
            fields = {"system": system, "user": user, "field": field, **of_paper}
        else:
            fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        needed = (
            f"name one of {', '.join(known)}, a YAML file, or a folder with {' and '.join(files)}"
        )
        raise ConfigError(f"{where}: {' '.join(str(error).split())}; {needed}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: it must be a mapping, not {type(fields).__name__}")
    template = checked(form, fields, where)
    marks: dict[str, Any] = {place: f"\x00{place}\x00" for place in places.split()}
    try:
        shown = template.fill(**marks).messages[1].content
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{where}: no format string over {places} ({error})") from None
    for place, mark in marks.items():
        if mark not in shown:
            raise ConfigError(f"{where}: it has no {{{place}}}")
    return template
