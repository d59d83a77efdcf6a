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

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, FiniteFloat

from bestofn.dataset import sources
from bestofn.engines.chat import ChatFormat
from bestofn.engines.model_files import load_tokenizer
from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import as_prompt
from bestofn.store.journal import write_atomically
from bestofn.store.pool import dumps
from bestofn.types import Candidate, Pool, Score


class Recorded(BaseModel):
    """A row of the file; other fields become columns of the prompt."""

    model_config = ConfigDict(extra="allow")

    prompt: Any
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
    good: FiniteFloat = Field(validation_alias=AliasChoices("gold", "preference"))


def as_pool(row: Recorded, chat: ChatFormat | None = None) -> Pool:
    """The pool of one row; the prompt's columns say which model wrote what."""
    columns = dict(row.model_extra or {})
    models = [response.model for response in row.candidates]
    if any(models):
        columns["models"] = models
    candidates = []
    for index, (text, good) in enumerate(row.responses()):
        candidate = Candidate(index, text, scores={"gold": Score(good)})
        if chat is not None:
            candidate.token_ids = [*chat.encode_continuation(text, close=False)]
            candidate.token_count = len(candidate.token_ids)
        candidates.append(candidate)
    name = None if row.id is None else str(row.id)
    return Pool(as_prompt(row.prompt, name, columns), candidates)


def read_pools(path: Path, chat: ChatFormat | None = None) -> list[Pool]:
    """The pools of a file's rows.

    Raises:
        ConfigError: it cannot be read, a row is of another form, or two have the same id.
    """
    pools, seen = [], dict[str, str]()
    for row in sources.read_rows(path):
        recorded = row.read_as(Recorded)
        if not any(True for _ in recorded.responses()):
            raise ConfigError(f"{row.where}: neither candidates nor chosen and rejected responses")
        pool = as_pool(recorded, chat)
        before = seen.setdefault(pool.prompt.id, row.where)
        if before != row.where:
            raise ConfigError(f"{row.where}: the prompt or id of {before}; give the rows ids")
        pools.append(pool)
    return pools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tokenizer", help="folder or name of a model, whose tokens are counted")
    args = parser.parse_args()
    try:
        chat = ChatFormat(load_tokenizer(args.tokenizer)) if args.tokenizer else None
        pools = read_pools(args.file, chat)
    except BestOfNError as error:
        parser.error(str(error))
    write_atomically(args.output, "".join(dumps(each) + "\n" for each in pools))
    print(f"wrote {len(pools)} pools to {args.output}")


if __name__ == "__main__":
    main()
