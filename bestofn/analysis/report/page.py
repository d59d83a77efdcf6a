"""The page itself: template, style, script and data in one file that needs no network."""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bestofn.analysis.report.data import browsable, choose
from bestofn.store.journal import write_atomically
from bestofn.types import Pool


def write_report(
    result: Mapping[str, Any],
    pools: Sequence[Pool],
    path: Path,
    *,
    title: str,
    limit: int = 500,
) -> None:
    """Writes one self-contained HTML page.

    Its data are JSON, compressed, and reach the page as text only: nothing that came from a model
    or a file is ever read as HTML or script, and the page's policy lets no other script run and
    nothing be loaded.

    Args:
        result: What `results.as_dict` returned.
        pools: The pools that it is about; the page has a browser for them.
        path: The file.
        title: Of the page.
        limit: Prompts that the browser shows at most; the page says which.

    Raises:
        BestOfNError: the file cannot be written.
    """
    chosen, sample = choose(pools, result, limit)
    names = [name for name in result["proxies"] if _is_scored(name, chosen)]
    data = {
        "result": dict(result),
        "sample": sample,
        "browser": browsable(chosen, names, result["gold"]),
    }
    script = part("page.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(part("page.html.jinja")).render(
        title=title,
        summary=result["summary"],
        sample=sample,
        style=Markup(part("page.css")),
        script=Markup(script),
        script_hash=hash_of(script),
        style_hash=hash_of(part("page.css")),
        data=_compressed(data),
    )
    write_atomically(path, page)


def _is_scored(name: str, pools: Sequence[Pool]) -> bool:
    return any(name in candidate.scores for pool in pools for candidate in pool.candidates)


def part(name: str, package: str = __package__) -> str:
    """A file of a page: a template, a style or a script."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def hash_of(content: str) -> str:
    """What the page's policy knows its own script and style by."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _compressed(data: Mapping[str, Any]) -> str:
    """JSON in gzip in base64; half of a surrogate pair, as cut emoji leave behind, becomes "?"."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()
