"""Turns recorded AlpacaEval responses with a judge's preferences into a pool file.

    python recipes/alpaca_eval_pools.py FILE.jsonl[.gz] -o pool.jsonl

Each row of FILE has `id`, `prompt` and `candidates`, which have `model`, `text` and `preference`
(how much a judge prefers the response to a reference, from 0 to 1). The preference becomes the
score "gold". The candidates are of different models, so curves from such a pool say nothing about
drawing more from one model: `bestofn curve --no-iid`.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.store.journal import write_atomically
from bestofn.types import Candidate, Pool, Score


def as_pool(row: dict[str, Any]) -> Pool:
    """The pool of one row; which model wrote what stands in the prompt's columns."""
    prompt = as_prompt(
        row["prompt"], row["id"], {"models": [c["model"] for c in row["candidates"]]}
    )
    candidates = [
        Candidate(index, candidate["text"], scores={"gold": Score(float(candidate["preference"]))})
        for index, candidate in enumerate(row["candidates"])
    ]
    return Pool(prompt, candidates)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = [pool.dumps(as_pool(row)) for row in read_rows(args.file)]
    write_atomically(args.output, "\n".join(rows) + "\n")
    print(f"wrote {len(rows)} pools to {args.output}")


if __name__ == "__main__":
    main()
