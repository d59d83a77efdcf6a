"""Turns recorded responses into a pool file, to which rewards and cuts can be added.

    python recipes/recorded_pools.py FILE.jsonl[.gz] -o pool.jsonl [--tokenizer MODEL]
    bestofn score pool.jsonl --engine hf:MODEL --reward flip-likelihood,longest
    bestofn curve pool.jsonl --no-iid -o out

Each row of FILE has a `prompt` and either `candidates`, which have `text` and how good they are,
`preference` or `gold`; or the responses `chosen` and `rejected`, as in RewardBench 2, which are 1
and 0. That becomes the score "gold"; what else the row has becomes the prompt's columns. Candidates
of several models say nothing about drawing more from one, hence `--no-iid`.

With `--tokenizer` the pool has the responses' tokens, for `bestofn curve --limits 32,64,128`, which
scores the first 32, 64 and 128 of each.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from bestofn.dataset import sources
from bestofn.engines.model_files import load_tokenizer
from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import as_prompt
from bestofn.store import pool
from bestofn.store.journal import write_atomically
from bestofn.types import Candidate, Pool, Score


class Recorded(BaseModel):
    """A row of the file; other fields become columns of the prompt."""

    model_config = ConfigDict(extra="allow")

    prompt: str
    id: str | int | None = None
    candidates: list["Response"] = []
    chosen: list[str] = []
    rejected: list[str] = []

    def responses(self) -> Iterator[tuple[str, float]]:
        """Each response, and how good it is."""
        yield from ((response.text, response.good) for response in self.candidates)
        yield from ((text, 1.0) for text in self.chosen)
        yield from ((text, 0.0) for text in self.rejected)


class Response(BaseModel):
    text: str
    model: str | None = None
    good: float = Field(validation_alias=AliasChoices("preference", "gold"))


def as_pool(row: Recorded, tokenizer: Any = None) -> Pool:
    """The pool of one row; which model wrote what stands in the prompt's columns."""
    columns = dict(row.model_extra or {})
    models = [response.model for response in row.candidates]
    if any(models):
        columns["models"] = models
    candidates = []
    for index, (text, good) in enumerate(row.responses()):
        candidate = Candidate(index, text, scores={"gold": Score(good)})
        if tokenizer is not None:
            candidate.token_ids = tokenizer.encode(text, add_special_tokens=False)
            candidate.token_count = len(candidate.token_ids)
        candidates.append(candidate)
    name = None if row.id is None else str(row.id)
    return Pool(as_prompt(row.prompt, name, columns), candidates)


def read_pools(path: Path, tokenizer: Any = None) -> list[Pool]:
    """The pools of a file's rows.

    Raises:
        ConfigError: it cannot be read, or a row is of another form.
    """
    pools = []
    for row in sources.read_rows(path):
        recorded = row.read_as(Recorded)
        if not any(True for _ in recorded.responses()):
            raise ConfigError(f"{row.where}: neither candidates nor chosen and rejected responses")
        pools.append(as_pool(recorded, tokenizer))
    return pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tokenizer", help="folder or name of a model, whose tokens are counted")
    args = parser.parse_args()
    try:
        tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
        pools = read_pools(args.file, tokenizer)
    except BestOfNError as error:
        parser.error(str(error))
    write_atomically(args.output, "".join(pool.dumps(each) + "\n" for each in pools))
    print(f"wrote {len(pools)} pools to {args.output}")


if __name__ == "__main__":
    main()
