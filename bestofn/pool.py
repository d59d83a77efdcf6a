"""The pool row: a Selection as JSON, and back."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Candidate, Selection, Usage

T = TypeVar("T")


def to_row(selection: Selection) -> dict[str, Any]:
    """The selection as an object that JSON can hold; a failed score's value is null."""
    prompt = selection.prompt
    turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return {
        "id": prompt.id,
        "prompt": turns[0]["content"] if len(turns) == 1 else turns,
        "index": selection.index,
        "text": selection.text,
        "reward": selection.reward,
        "tie": selection.tie,
        "fallback": selection.fallback,
        "candidates": [_candidate_row(candidate) for candidate in selection.candidates],
        "usage": asdict(selection.usage),
    }


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    row = asdict(candidate)
    for score in row["scores"].values():
        if math.isnan(score["value"]):
            score["value"] = None
    return row


class _Fields(BaseModel):
    """The fields of a row besides its prompt and candidates."""

    model_config = ConfigDict(strict=True)

    id: str
    index: int
    reward: str
    tie: bool = False
    fallback: bool = False


def dumps(selection: Selection) -> str:
    """The row as one line of JSON, without its line break."""
    text = json.dumps(to_row(selection), ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, as cut emoji leave behind, cannot be written to a file.
    return text.encode("utf-8", "replace").decode("utf-8")


def _null_is_nan(value: Any) -> Any:
    """Restores the NaN of failed scores in a candidate's row."""
    if isinstance(value, Mapping) and isinstance(value.get("scores"), Mapping):
        scores = {
            name: {**score, "value": math.nan}
            if isinstance(score, Mapping) and score.get("value", 0) is None
            else score
            for name, score in value["scores"].items()
        }
        return {**value, "scores": scores}
    return value


_CANDIDATES = TypeAdapter(list[Annotated[Candidate, BeforeValidator(_null_is_nan)]])
_USAGE = TypeAdapter(Usage)
_FIELDS = TypeAdapter(_Fields)


def from_row(row: Mapping[str, Any]) -> Selection:
    """The selection that `to_row` made the row of.

    Raises:
        ConfigError: a field is missing or wrong; the message names it.
    """
    for name in ("prompt", "candidates"):
        if name not in row:
            raise ConfigError(f"the row has no field {name!r}")
    fields = _validated(_FIELDS, {name: row[name] for name in _Fields.model_fields if name in row})
    selection = Selection(
        prompt=as_prompt(row["prompt"], fields.id),
        candidates=_validated(_CANDIDATES, row["candidates"], "candidates"),
        usage=_validated(_USAGE, row.get("usage", {}), "usage"),
        **fields.model_dump(exclude={"id"}),
    )
    _check(selection)
    return selection


def _validated(adapter: TypeAdapter[T], value: Any, *field: str) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*field, *first["loc"])))
        raise ConfigError(f"the row's field {where!r} is wrong: {first['msg']}") from None


def _check(selection: Selection) -> None:
    places = [candidate.index for candidate in selection.candidates]
    if places != list(range(len(places))) or not places:
        raise ConfigError(f"the row's candidates must be numbered from 0, not {places}")
    if selection.index not in places:
        raise ConfigError(f"the row's index {selection.index!r} is none of its candidates")
    unscored = [c.index for c in selection.candidates if selection.reward not in c.scores]
    if unscored:
        raise ConfigError(f"candidate {unscored[0]} has no score named {selection.reward!r}")


def loads(line: str) -> Selection:
    """The selection in one line of JSON.

    Raises:
        ConfigError: it is no JSON object, or no row.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"a row is a JSON object, not {type(row).__name__}")
    return from_row(row)
