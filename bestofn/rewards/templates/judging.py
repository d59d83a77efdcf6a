"""Templates of judges: from a request and its responses to the prompt that asks for a verdict.

The request stands before the responses, so that a prefix cache serves it for all of them.
Placeholders are those of the paper's files, which load by folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bestofn.errors import ConfigError
from bestofn.rewards.templates import (
    checked_template,
    find_template,
    read_paper_files,
    read_template,
)
from bestofn.types import Message, Prompt

BUILT_IN = Path(__file__).parent / "judges"

Kind = Literal["pointwise", "pairwise", "listwise"]
PLACEHOLDERS: dict[Kind, tuple[str, ...]] = {
    "pointwise": ("prompt", "response"),
    "pairwise": ("prompt", "response1", "response2"),
    "listwise": ("prompt", "response_list"),
}
# The paper's files and the field that each asks for; it numbers responses from 0.
PAPER: dict[Kind, tuple[str, str]] = {
    "pointwise": ("llmjudge_pointwise_rating", "SCORE"),
    "pairwise": ("llmjudge_pairwise_ranking", "BETTER_RESPONSE"),
    "listwise": ("llmjudge_listwise_ranking", "BEST_RESPONSE_INDEX"),
}


class JudgeTemplate(BaseModel):
    """The texts of one question to a judge, each a `str.format` string with doubled braces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    """What the judge is to do."""
    user: str
    """The request and what was answered: `{prompt}`, then `{response}`, `{response1}` and
    `{response2}`, or `{response_list}`."""
    field: str
    """The field of the JSON answer that holds the verdict."""
    first_number: int = 1
    """The number of the first response of a list."""

    def fill(self, **texts: str) -> Prompt:
        """The question, with these texts in the places of that name.

        Raises:
            ValueError: the template has another placeholder.
        """
        try:
            system, user = self.system.format(**texts), self.user.format(**texts)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not a format string over {', '.join(texts)} ({error})") from None
        return Prompt((Message("system", system), Message("user", user)))

    def listed(self, responses: Sequence[str]) -> str:
        """Numbered responses as one text."""
        return "\n\n".join(f"[{n}]\n{text}" for n, text in enumerate(responses, self.first_number))


def load_judge_template(name: str | Path, kind: Kind) -> JudgeTemplate:
    """A built-in template by name, a YAML file of the same form, or a folder of the paper's files.

    Raises:
        ConfigError: there is no such template, it is not well formed, or a place is missing.
    """
    stem, field = PAPER[kind]
    paper_files = [f"{stem}_{part}.prompt" for part in ("SYSTEM", "USER")]
    path = find_template(name, BUILT_IN, paper_files)
    if path.is_file():
        template = read_template(JudgeTemplate, path)
    else:
        system, user = read_paper_files(path, paper_files)
        fields = {"system": system, "user": user, "field": field, "first_number": 0}
        template = checked_template(JudgeTemplate, fields, path)
    _check(template, kind, path)
    return template


def _check(template: JudgeTemplate, kind: Kind, path: Path) -> None:
    marks: Mapping[str, str] = {name: f"\x00{name}\x00" for name in PLACEHOLDERS[kind]}
    try:
        user = template.fill(**marks).messages[-1].content
    except ValueError as error:
        raise ConfigError(f"template {path} is not well formed: {error}") from None
    for name, mark in marks.items():
        if mark not in user:
            raise ConfigError(f"template {path} is not well formed: `user` has no {{{name}}}")
