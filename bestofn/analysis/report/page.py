"""One HTML page in one file that needs no network: findings, pictures, tables, examples."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bestofn.store.journal import write_atomically


@dataclass(frozen=True, slots=True)
class Table:
    """Cells under a head; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a data URI, with the text for those who do not see it."""

    title: str
    source: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page, under its name as heading; short tables are unfolded."""

    name: str
    note: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[Mapping[str, Any]] = ()


def write_page(
    path: Path,
    *,
    title: str,
    facts: str,
    result: Mapping[str, Any],
    sections: Iterable[Section],
    browser: Mapping[str, Any] | None = None,
    sample: str = "",
) -> None:
    """Writes a page.

    What came from a model or a file reaches the page escaped, in an image or as text of compressed
    JSON, and never as HTML or script. The page's policy lets no other script run and nothing be
    loaded.

    Args:
        path: The file.
        title: Of the page.
        facts: A line below it.
        result: Has the `findings`, and `left_out` where prompts were.
        sections: The parts of the page.
        browser: Prompts and candidates to browse, see `browser.browsable`; without any the page
            has no script.
        sample: Which prompts these are.

    Raises:
        BestOfNError: the file cannot be written.
    """
    style, script = _part("page.css"), _part("page.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_part("page.html.jinja")).render(
        title=title,
        facts=facts,
        findings=result["findings"],
        left_out=result.get("left_out", []),
        sections=sections,
        sample=sample,
        style=Markup(style),
        style_hash=_hash_of(style),
        script=Markup(script),
        script_hash=_hash_of(script),
        data=None if browser is None else _compressed(browser),
    )
    write_atomically(path, page)


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash_of(content: str) -> str:
    """What the page's policy knows its own script and style by."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _compressed(data: Mapping[str, Any]) -> str:
    """JSON in gzip in base64; half of a surrogate pair, as cut emoji leave behind, becomes "?"."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()
