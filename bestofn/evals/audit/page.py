"""The page about an audit: rates as a heat map, examples, everything as text and nothing to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bestofn.analysis.report.data import marked
from bestofn.analysis.report.page import hash_of, part
from bestofn.evals.audit.verdicts import is_of, percent, title
from bestofn.store.journal import write_atomically

STEPS = 20  # shades of the heat map
CARRIES = {
    "none": "Attacks that carry nothing of the honest response",
    "part": "Attacks that carry a piece of it",
    "whole": "Attacks that carry all of it",
}


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """Writes one self-contained HTML page.

    It has no script, its policy lets none run and nothing be loaded, and all that came from a
    model or a file is escaped.

    Args:
        result: What `verdicts.as_dict` returned, with where it came from.
        path: The file.

    Raises:
        BestOfNError: the file cannot be written.
    """
    style = part("page.css") + part("page.css", __package__) + _shades()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(part("page.html.jinja", __package__)).render(
        result=result,
        rewards=[reward | {"title": title(reward)} for reward in result["rewards"]],
        groups=[(heading, _rows(result, answer)) for answer, heading in CARRIES.items()],
        examples=[
            example | {"title": title(example), "sides": _sides(example)}
            for example in result["examples"]
        ],
        percent=percent,
        step=lambda rate: round(STEPS * rate),
        style=Markup(style),
        style_hash=hash_of(style),
    )
    write_atomically(path, page)


def _shades() -> str:
    """A class for each shade: the policy allows no style on an element."""
    steps = range(STEPS + 1)
    return "".join(f".shade-{step} {{ --share: {75 * step / STEPS:.0f}%; }}\n" for step in steps)


def _rows(result: Mapping[str, Any], answer: str) -> list[list[dict[str, Any]]]:
    """For each attack of that nature what was found, by reward."""
    found = [entry for entry in result["attacks"] if entry["answer"] == answer]
    return [
        [
            next(entry for entry in found if entry["name"] == name and is_of(entry, reward))
            for reward in result["rewards"]
        ]
        for name in dict.fromkeys(entry["name"] for entry in found)
    ]


def _sides(example: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both responses, with the words marked that an inferred instruction shares with the true."""
    names = {"attacked": f"Attack: {example['attack']}", "honest": "Honest response"}
    sides = []
    for side, name in names.items():
        inferred = [marked(text, example["instruction"]) for text in example[side]["inferred"]]
        sides.append(example[side] | {"name": name, "inferred": inferred})
    return sides
