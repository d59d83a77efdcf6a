"""The report: one HTML page in one file that needs no network, with a browser of the prompts."""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from bestofn.analysis.findings import shown
from bestofn.analysis.plots import as_image, figures
from bestofn.analysis.results import flat, table
from bestofn.estimators import Interval
from bestofn.prompts import spoken, user_message
from bestofn.rewards.similarity import words
from bestofn.store.journal import write_atomically
from bestofn.types import Pool, Score

FEW = 40  # distinct values of a column that can be chosen from
TITLES = {
    "scaling": "{gold} by N under each proxy, and of each proxy minus a random candidate",
    "costs": "{gold} by what it costs",
    "lengths": "Selection by length, and by the first tokens of responses",
}


# --- any page -------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Cells under a head; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
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
    JSON, and never as HTML or script; the page's policy lets no other script run and nothing load.
    `result` has the `findings`, and `left_out` where prompts were. Without a `browser`, see
    `browsable`, a page has no script; `sample` says which prompts it shows.
    """
    own = resources.files(__package__)
    parts = [(own / f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html.jinja")]
    # The page's policy knows its own style and script by their hashes.
    hashes = [base64.b64encode(hashlib.sha256(p.encode()).digest()).decode() for p in parts]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(parts[2]).render(
        title=title,
        facts=facts,
        findings=result["findings"],
        left_out=result.get("left_out", []),
        sections=sections,
        sample=sample,
        style=Markup(parts[0]),
        style_hash=hashes[0],
        script=Markup(parts[1]),
        script_hash=hashes[1],
        data=None if browser is None else _compressed(browser),
    )
    write_atomically(path, page)


def _compressed(data: Mapping[str, Any]) -> str:
    """JSON in gzip in base64; half of a surrogate pair, as cut emoji leave behind, becomes "?"."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


# --- the page about a curve -----------------------------------------------------------------------


def write_report(
    result: Mapping[str, Any], pools: Sequence[Pool], path: Path, *, title: str, limit: int = 500
) -> None:
    """Writes one self-contained HTML page about what `results.as_dict` returned and its pools.

    Its browser shows at most `limit` prompts, and the page says which.
    """
    chosen, sample = choose(pools, result, limit)
    known = {name for pool in chosen for c in pool.candidates for name in c.scores}
    gold, sizes = result["gold"], dict.fromkeys(map(str, result["candidates"].values()))
    draws = f" × {result['seeds']} draws" if result["seeds"] > 1 else ""
    pictures = [
        Picture(TITLES[name].format(gold=gold), as_image(figure))
        for name, figure in figures(result).items()
    ]
    write_page(
        path,
        title=title,
        facts=f"{result['prompts']} prompts × {' to '.join(sizes)} candidates{draws} · gold: "
        f"{gold} · {result['level']:.0%} intervals over prompts",
        result=result,
        sections=[
            Section("Curves", pictures=pictures),
            Section("Tables", tables=[t for t in _tables(result) if t.rows]),
        ],
        browser=browsable(chosen, [n for n in result["proxies"] if n in known], gold),
        sample=sample,
    )


def _tables(result: Mapping[str, Any]) -> Iterator[Table]:
    n, lengths = result["ns"][-1], result["lengths"]
    yield _table("Every proxy and N (tokens and seconds per prompt)", [*table(result)])
    differences = [
        {"a": d["a"], "b": d["b"]}
        | {name: end[-1] for name, end in flat("difference", d["gold"]).items()}
        | {share: d[share]["mean"][-1] for share in ("win", "tie", "lose")}
        for d in result["differences"]
    ]
    yield _table(f"{result['gold']} under a minus under b at N={n}, paired by prompt", differences)
    cuts = [
        {"reward": name, "first tokens": limit, "candidates longer": lengths["cut_share"][place]}
        | {f"{result['gold']} of the full candidate": cut["full"]["mean"][place][-1]}
        | {key: end[place] for key, end in flat("difference", cut["difference"]).items()}
        | {key: cut[key][place] for key in ("computed_tokens", "separate_tokens")}
        for name, cut in (lengths["rewards"].items() if lengths else ())
        for place, limit in enumerate(lengths["limits"])
    ]
    yield _table(f"By first tokens minus by whole responses at N={n}, tokens per prompt", cuts)


def _table(caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The columns that have values; an interval is one cell."""

    def cell(row: Mapping[str, Any], name: str) -> str:
        if f"{name}_low" in row:
            ends = Interval(*(row[name + end] for end in ("", "_low", "_high")))
            return shown(ends, "value" if name == "gold" else "difference")
        value = "–" if row[name] is None else row[name]
        return f"{round(value, 4):,.4g}" if isinstance(value, float) else str(value)

    ends = {f"{name}{end}" for row in rows for name in row for end in ("_low", "_high")}
    names = [name for name in (rows[0] if rows else ()) if name not in ends]
    head = [name for name in names if any(row[name] is not None for row in rows)]
    return Table(caption, head, [[cell(row, name) for name in head] for row in rows])


# --- its browser ----------------------------------------------------------------------------------


def choose(pools: Sequence[Pool], result: Mapping[str, Any], limit: int) -> tuple[list[Pool], str]:
    """At most `limit` of the pools in their order, and a sentence that says which.

    The prompts on which proxies differ most come first, the others are evenly spaced.
    """
    seeds = len(result["pools"])
    which = f" The candidates are those of the first of {seeds} pools." if seeds > 1 else ""
    if len(pools) <= limit:
        return list(pools), f"All {len(pools)} prompts.{which}"
    named = {entry["id"] for d in result["differences"] for entry in d["most"]}
    chosen = [place for place, pool in enumerate(pools) if pool.prompt.id in named][:limit]
    others = [place for place in range(len(pools)) if place not in chosen]
    wanted = limit - len(chosen)
    chosen += [others[place * len(others) // wanted] for place in range(wanted)]
    sentence = (
        f"{limit} of {len(pools)} prompts: those on which two proxies differ most, the others "
        f"evenly spaced over the pool.{which}"
    )
    return [pools[place] for place in sorted(chosen)], sentence


def browsable(pools: Sequence[Pool], names: Sequence[str], gold: str) -> dict[str, Any]:
    """The prompts with their candidates as JSON can hold them; scores by the places of `names`."""
    columns: dict[str, set[str]] = {}
    for pool in pools:
        for name, value in pool.prompt.columns.items():
            if isinstance(value, str | int | bool):
                columns.setdefault(name, set()).add(str(value))
    golds = (c.scores[gold].value for pool in pools for c in pool.candidates if gold in c.scores)
    kept = [name for name, values in columns.items() if 1 < len(values) <= FEW]
    return {
        "scores": list(names),
        "columns": kept,
        "binary": {value for value in golds if not isnan(value)} <= {0.0, 1.0},
        "prompts": [_prompt(pool, names, gold, kept) for pool in pools],
    }


def _prompt(pool: Pool, names: Sequence[str], gold: str, columns: Sequence[str]) -> dict[str, Any]:
    prompt, true = pool.prompt, user_message(pool.prompt)
    known = {name: prompt.columns.get(name) for name in columns}
    candidates = []
    for c in pool.candidates:
        verdict = _score(c.scores.get(gold, Score()), true)
        candidates.append(
            {
                "text": c.text,
                "reasoning": c.reasoning,
                "finish": c.finish_reason,
                "error": c.error,
                "tokens": c.token_count,
                "gold": verdict["value"],
                "unknown": verdict["reason"],
                "scores": [_score(c.scores[n], true) if n in c.scores else None for n in names],
            }
        )
    return {
        "id": prompt.id,
        "messages": [[turn.role, spoken(turn)] for turn in prompt.messages],
        "columns": {name: None if value is None else str(value) for name, value in known.items()},
        "candidates": candidates,
    }


def _score(score: Score, true: str) -> dict[str, Any]:
    value = None if isnan(score.value) else score.value
    inferred = [marked(text, true) for text in score.inferred]
    return {"value": value, "reason": score.reason, "flags": score.flags, "inferred": inferred}


def marked(inferred: str, true: str) -> list[list[Any]]:
    """The inferred instruction in pieces `[text, shared]`, as word F1 counts shared words.

    A word that the true instruction has once is shared once.
    """
    left = Counter(words(true))
    pieces: list[list[Any]] = []
    for piece in inferred.split(" "):
        own = words(piece)
        shared = bool(own) and all(left[word] > 0 for word in own)
        if shared:
            left.subtract(own)
        if pieces and pieces[-1][1] == shared:
            pieces[-1][0] += " " + piece
        else:
            pieces.append([piece, shared])
    return pieces
