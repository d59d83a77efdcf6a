"""Turns recorded AlpacaEval responses into best-of-4 items, for `bestofn rewardbench`.

    python recipes/alpaca_eval_items.py FILE.jsonl[.gz] -o items.jsonl
    bestofn rewardbench --data items.jsonl --engine tiny --reward flip,longest -o out

Each row of FILE has `id`, `prompt` and `candidates`, which have `model`, `text` and `preference`
(how much a judge prefers the response to a reference, from 0 to 1). The items are of two subsets:

- off-topic: one response to the prompt, and three responses to other prompts, by the same model
  where it has so many. What is right here is beyond doubt.
- preference: one response that the judge clearly prefers (at least 0.9) and three that it clearly
  does not (at most 0.1). What is right here is that judge's opinion, which favours long responses.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, Field

from bestofn.dataset import sources
from bestofn.errors import ConfigError
from bestofn.store.journal import write_atomically

WRONG = 3
Row = dict[str, Any]


def off_topic(row: Row, rows: Sequence[Row], rng: Random) -> Row | None:
    """An item of a response and three to other prompts; None if there are not so many."""
    chosen = rng.choice(row["candidates"])
    others = [
        candidate
        for other in rows
        for candidate in other["candidates"]
        if other["id"] != row["id"] and candidate["text"] != chosen["text"]
    ]
    same = distinct(c for c in others if c["model"] == chosen["model"])
    pool = same if len(same) >= WRONG else distinct(others)
    return item(row, "off-topic", chosen, pool, rng)


def preference(row: Row, least: float, most: float, rng: Random) -> Row | None:
    """An item of a response that is clearly preferred and three that are clearly not, or None."""
    good = [c for c in row["candidates"] if c["preference"] >= least]
    bad = distinct(c for c in row["candidates"] if c["preference"] <= most)
    return item(row, "preference", rng.choice(good), bad, rng) if good else None


def distinct(candidates: Iterator[Row] | Sequence[Row]) -> list[Row]:
    """The candidates without those whose text another one has."""
    return list({candidate["text"]: candidate for candidate in candidates}.values())


def item(row: Row, subset: str, chosen: Row, wrong: Sequence[Row], rng: Random) -> Row | None:
    """A row of the schema of RewardBench 2; None if there are too few wrong responses."""
    if len(wrong) < WRONG:
        return None
    rejected = rng.sample(wrong, WRONG)
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "chosen": [chosen["text"]],
        "rejected": [candidate["text"] for candidate in rejected],
        "num_correct": 1,
        "num_incorrect": WRONG,
        "total_completions": 1 + WRONG,
        "models": [candidate["model"] for candidate in (chosen, *rejected)],
        "subset": subset,
    }


def read_rows(path: Path) -> list[Row]:
    """The rows of the file.

    Raises:
        ConfigError: it cannot be read, or a row is of another form.
    """
    return [row.read_as(_Recorded).model_dump() for row in sources.read_rows(path)]


class _Response(BaseModel):
    model: str
    text: str
    preference: float


class _Recorded(BaseModel):
    id: str
    prompt: str
    candidates: list[_Response] = Field(min_length=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--least", type=float, default=0.9, help="preference of a right response")
    parser.add_argument("--most", type=float, default=0.1, help="preference of a wrong response")
    parser.add_argument("--seed", type=int, default=0, help="of which responses are taken")
    args = parser.parse_args()
    try:
        rows = read_rows(args.file)
    except ConfigError as error:
        parser.error(str(error))
    rng = Random(args.seed)
    kinds = {
        "off-topic": [off_topic(row, rows, rng) for row in rows],
        "preference": [preference(row, args.least, args.most, rng) for row in rows],
    }
    made = [found for items in kinds.values() for found in items if found is not None]
    write_atomically(args.output, "".join(json.dumps(found) + "\n" for found in made))
    print(f"wrote {len(made)} items to {args.output}")
    for name, items in kinds.items():
        lacking = [row["id"] for row, found in zip(rows, items, strict=True) if found is None]
        if lacking:
            print(f"{len(lacking)} prompts have no item of {name}: {', '.join(lacking)}")


if __name__ == "__main__":
    main()
