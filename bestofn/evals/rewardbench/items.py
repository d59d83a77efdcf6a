"""Items of RewardBench 2, read from anything with rows of its schema, and made into pools."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bestofn.config import RewardBenchConfig
from bestofn.dataset.sources import Row, read_rows
from bestofn.errors import ConfigError
from bestofn.prompts import (
    PromptLike,
    answer_text,
    as_prompt,
    as_turns,
    plain,
    random_for,
)
from bestofn.types import Candidate, Pool, Score

GOLD = "gold"
"""The score that says which candidates are right: 1, or else 0."""
TIES, SAFETY = "Ties", "Safety"
MEAN = "mean"
"""Stands for the mean over subsets where the name of a subset is expected."""
ON_REQUEST = (TIES, SAFETY)


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt with right and wrong responses.

    Attributes:
        id: Names it within its subset.
        subset: What is tested.
        prompt: What was asked.
        chosen: The right responses.
        rejected: The wrong ones.
        models: Who wrote them, in that order; empty where that is not known.
    """

    id: str
    subset: str
    prompt: PromptLike
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    models: tuple[str, ...] = ()


class _Schema(BaseModel):
    """A row of the data set; what else it has is of no interest here."""

    model_config = ConfigDict(strict=True)

    id: str = Field(min_length=1)
    prompt: Any
    chosen: list[str] = Field(min_length=1)
    rejected: list[str] = Field(min_length=1)
    subset: str = Field(min_length=1)
    num_correct: int | None = None
    models: list[str] | None = None

    @field_validator("chosen", "rejected", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Responses that are chat messages, or lists of text parts, as texts."""
        if not isinstance(value, list):
            return value
        return [answer_text(item) if isinstance(item, list | Mapping) else item for item in value]

    @model_validator(mode="after")
    def _counted(self) -> "_Schema":
        if self.num_correct not in (None, len(self.chosen)):
            raise ValueError(
                f"'num_correct' is {self.num_correct}, but 'chosen' has {len(self.chosen)}"
            )
        if self.subset == MEAN:
            raise ValueError(f"the subset {MEAN!r} would be taken for the mean over subsets")
        kind, colon, _ = self.id.partition(":")
        if self.subset == TIES and (kind not in ("ref", "tied") or not colon):
            raise ValueError(f"an 'id' of {TIES} is 'ref:K' or 'tied:K', not {self.id!r}")
        return self


def read_items(config: RewardBenchConfig) -> list[Item]:
    """The items that a run is about, in the order of the data.

    Raises:
        ConfigError: the data cannot be read, a row is not of the schema, or a subset has none.
    """
    by_subset: dict[str, list[Item]] = {}
    seen: dict[tuple[str, str], str] = {}
    for row in _rows(config.data):
        item = _item(row)
        before = seen.setdefault((item.subset, item.id), row.where)
        if before != row.where:
            raise ConfigError(
                f"{row.where}: the subset {item.subset!r} has the 'id' {item.id!r} already, in "
                f"{before}"
            )
        by_subset.setdefault(item.subset, []).append(item)
    wanted = config.subsets or [name for name in by_subset if name not in ON_REQUEST]
    for name in wanted:
        if name not in by_subset:
            raise ConfigError(
                f"{config.data} has no items of the subset {name!r}; it has "
                f"{', '.join(by_subset) or 'none at all'}"
            )
    if not wanted:
        raise ConfigError(f"{config.data} holds no items" + _on_request(by_subset))
    return [item for name in wanted for item in by_subset[name][: config.limit_per_subset]]


def _on_request(subsets: Iterable[str]) -> str:
    named = " ".join(f"--subset {name}" for name in subsets)
    return f" but those on request: {named}" if named else ""


def _rows(data: str) -> Iterator[Row]:
    kind, colon, count = data.partition(":")
    if kind != "tiny" or not colon:
        return read_rows(data)
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"items of the tiny world are 'tiny:COUNT', not {data!r}")
    return _tiny_rows(data, int(count))


def _tiny_rows(data: str, count: int) -> Iterator[Row]:
    from bestofn.tiny.items import tiny_items

    for number, row in enumerate(tiny_items(count)):
        yield Row(f"{data}, row {number}", row)


def _item(row: Row) -> Item:
    try:
        values = {name: v for name, v in row.values.items() if name in _Schema.model_fields}
        found = _Schema.model_validate(
            {name: plain(v) if isinstance(v, str | list) else v for name, v in values.items()}
        )
        prompt = as_prompt(found.prompt)
    except ValidationError as error:
        raise ConfigError(f"{row.where}: {_sentence(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{row.where}: the field 'prompt': {error}") from None
    return Item(
        found.id,
        found.subset,
        found.prompt if isinstance(found.prompt, str) else as_turns(prompt.messages),
        tuple(found.chosen),
        tuple(found.rejected),
        tuple(found.models or ()),
    )


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"the field {field!r} is missing; an item has id, prompt, chosen, rejected, subset"
    said = first["msg"].removeprefix("Value error, ")
    return f"the field {field!r} is wrong: {said}" if field else said


# --- as pools -------------------------------------------------------------------------------------


def as_pool(item: Item, seed: int) -> Pool:
    """The item as a pool, whose candidates stand in an order by seed and item.

    So no place favours the right ones. Its columns say subset and id, and who wrote what.
    """
    prompt = as_prompt(item.prompt, f"{item.subset}/{item.id}")
    responses = [*item.chosen, *item.rejected]
    order = list(range(len(responses)))
    random_for("order of an item", seed, prompt).shuffle(order)
    columns: dict[str, Any] = {"subset": item.subset, "item": item.id}
    if len(item.models) == len(responses):
        columns["models"] = [item.models[place] for place in order]
    candidates = [
        Candidate(index, responses[place], scores={GOLD: Score(float(place < len(item.chosen)))})
        for index, place in enumerate(order)
    ]
    return Pool(as_prompt(prompt, columns=columns), candidates)


def fingerprint(items: Sequence[Item]) -> str:
    """A hash of all that the items hold, to tell whether data have changed."""
    digest = hashlib.blake2b(digest_size=8)
    for item in items:
        digest.update(json.dumps(asdict(item)).encode())
    return digest.hexdigest()


def scores_of(pool: Pool, name: str) -> list[Score]:
    """The scores of that name, by candidate.

    Raises:
        ConfigError: one is missing.
    """
    try:
        return [candidate.scores[name] for candidate in pool.candidates]
    except KeyError:
        raise ConfigError(f"the item {pool.prompt.id!r} has no scores {name!r}") from None
