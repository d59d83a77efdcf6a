"""Rows to export, and exports read back."""

import csv
import json
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from making import made

from bestofn.dataset.export import Format, export
from bestofn.prompts import as_prompt
from bestofn.sampler import choose
from bestofn.types import Candidate, Pool, Score, Selection, Usage

ODD = 'two\r\nlines, a "quote"; \t \u2028 \x00 🎈 e\u0301'


def chosen(
    name: str,
    scores: Mapping[str, Sequence[float]],
    columns: Mapping[str, Any] | None = None,
    texts: Sequence[str] | None = None,
) -> Selection:
    """The selection from a pool made by hand, by the first reward."""
    row = made(name, scores, texts=texts)
    prompt = as_prompt(row.prompt, columns=columns or {})
    return choose(prompt, row.candidates, next(iter(scores)), Usage(7, 2, 5, 3, 1, 0.5))


def failed(name: str, candidates: int = 0) -> Selection:
    """A selection without a response."""
    broken = [
        Candidate(i, "", finish_reason="error", error="it broke", scores={"flip": Score()})
        for i in range(candidates)
    ]
    error = f"all {candidates} candidates failed: it broke" if broken else "it does not fit"
    return Selection(as_prompt("x", name), broken, 0, "flip", fallback=bool(broken), error=error)


def one_of_each() -> list[Pool]:
    """Eight rows, no two of a sort."""
    clear = chosen("clear", {"flip": [0.25, 0.75, nan], "gold": [1, 0, 0]}, {"level": 1})
    clear.candidates[0].token_count = 12
    clear.candidates[1].mean_logprob = -0.5
    clear.candidates[1].finish_reason = "length"
    part = chosen("part", {"flip": [nan, 0.5]})
    part.candidates[0] = failed("", 1).candidates[0]
    return [
        clear,
        chosen("tie", {"flip": [0.5, 0.5]}, {"level": 2, "tags": ["x", None]}),
        chosen("fallback", {"flip": [nan, nan]}, {"level": None}),
        chosen("odd", {"flip": [0.0, 1.0]}, texts=["", ODD]),
        chosen("same", {"flip": [0.1, 0.9]}, texts=["one", "one"]),
        part,
        failed("unanswered"),
        failed("broken", 2),
    ]


def exported(source: Path, format: Format = "jsonl", **options: Any) -> list[dict[str, Any]]:
    """The records of an export beside the source, read back."""
    target = source.parent / f"out.{format}"
    result = export(source, target, format=format, overwrite=target.exists(), **options)
    records = read_back(target, format)
    assert len(records) == result.records
    return records


def read_back(target: Path, format: Format) -> list[dict[str, Any]]:
    """What a reader of the format finds."""
    if format == "hf":
        return [dict(record) for record in datasets.load_from_disk(target)]
    if format == "parquet":
        return pd.read_parquet(target, dtype_backend="pyarrow").to_dict("records")
    if format == "jsonl":
        return [json.loads(line) for line in target.read_text("utf-8").split("\n")[:-1]]
    with target.open(encoding="utf-8", newline="") as file:
        return [dict(record) for record in csv.DictReader(file)]


def as_csv(value: Any) -> str:
    """What a CSV file says for a value."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
