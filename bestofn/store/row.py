"""The pool row: the candidates of a prompt, and perhaps which was selected, as JSON and back."""

import json
import re
from collections.abc import Iterator, Mapping
from math import isfinite, isnan, nan
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from bestofn.errors import ConfigError
from bestofn.prompts import answer_text, as_given, as_prompt, as_turns, clean, plain, written
from bestofn.types import Candidate, Pool, Score, Selection, Usage

T = TypeVar("T")
BY_HAND = ("id", "prompt", "responses", "columns")
ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair in JSON; nothing else can bring one in."""


def to_row(pool: Pool) -> dict[str, Any]:
    """The pool as an object that JSON can hold; a failed score's value is null.

    A Selection's row also says which candidate was chosen, and what it says.
    """
    prompt = pool.prompt
    row: dict[str, Any] = {
        "id": prompt.id,
        "prompt": as_given(prompt.messages),
    }
    if prompt.columns:
        row["columns"] = plain(prompt.columns)
    if isinstance(pool, Selection):
        row |= {
            "index": pool.index,
            "response": pool.text,
            "reward": pool.reward,
            "tie": pool.tie,
            "fallback": pool.fallback,
            "error": pool.error,
            "usage": dict(_fields(pool.usage)),
        }
    row["candidates"] = [_candidate_row(candidate) for candidate in pool.candidates]
    if pool.seconds:
        row["seconds"] = pool.seconds
    return row


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    """The candidate without what is unknown or zero: large pools have many scores."""
    row = {name: value for name, value in _fields(candidate) if value is not None}
    row["usage"] = _known(candidate.usage)
    row["scores"] = {name: score_row(score) for name, score in candidate.scores.items()}
    return row


def score_row(score: Score) -> dict[str, Any]:
    parts = {
        "reason": score.reason,
        "inferred": score.inferred,
        "flags": score.flags,
        "counts": score.counts,
        "usage": _known(score.usage),
    }
    value = None if isnan(score.value) else score.value
    return {"value": value} | {
        name: part for name, part in parts.items() if part not in (None, [], {})
    }


def _known(usage: Usage) -> dict[str, Any]:
    return {name: value for name, value in _fields(usage) if value}


def _fields(item: Candidate | Usage) -> Iterator[tuple[str, Any]]:
    """Name and value of each field; `dataclasses.asdict` takes ten times as long."""
    return ((name, getattr(item, name)) for name in item.__slots__)


class _Chosen(BaseModel):
    """What the row of a Selection has besides."""

    model_config = ConfigDict(strict=True)

    index: int
    reward: str
    tie: bool = False
    fallback: bool = False
    error: str | None = None


def dumps(pool: Pool) -> str:
    """The row as one line of JSON, without its line break."""
    return as_line(to_row(pool))


def as_line(row: Mapping[str, Any]) -> str:
    """A row that is an object already."""
    return clean(json.dumps(row, ensure_ascii=False, allow_nan=False, default=plain))


def _restored(value: Any) -> Any:
    """A candidate's row with NaN for the scores that failed."""
    if not isinstance(value, Mapping) or not isinstance(value.get("scores"), Mapping):
        return value
    return {**value, "scores": {name: _restored_score(s) for name, s in value["scores"].items()}}


def _restored_score(score: Any) -> Any:
    if not isinstance(score, Mapping):
        return score
    number = score.get("value", nan)
    if number is None:
        return {**score, "value": nan}
    if isinstance(number, float) and not isfinite(number):
        reason = score.get("reason") or f"the pool says {number}, which is no finite number"
        return {**score, "value": nan, "reason": reason}
    return score


_Candidate = Annotated[Candidate, BeforeValidator(_restored)]
_SCORES = TypeAdapter(list[Annotated[Score, BeforeValidator(_restored_score)]])
_CANDIDATE = TypeAdapter[Candidate](_Candidate)
_CANDIDATES = TypeAdapter(list[_Candidate])
_USAGE = TypeAdapter(Usage)
_SECONDS = TypeAdapter(dict[str, Annotated[float, Field(allow_inf_nan=False)]])
_COLUMNS = TypeAdapter(dict[str, Any])
_CHOSEN = TypeAdapter(_Chosen)


def as_candidate(fields: Mapping[str, Any]) -> Candidate:
    """A candidate of these fields.

    Raises:
        ConfigError: one is missing or wrong; the message names it.
    """
    return _validated(_CANDIDATE, fields)


def as_scores(values: Any) -> list[Score]:
    """The scores that `score_row` made these objects of.

    Raises:
        ConfigError: one is wrong; the message names it.
    """
    return _validated(_SCORES, values, "scores")


def from_row(row: Mapping[str, Any]) -> Pool:
    """The pool that `to_row` made the row of; a Selection if the row says what was chosen.

    Or the pool of a row made by hand, with `prompt` and `responses`, which are texts, objects with
    a `text`, or chat messages. It needs no `id`, and its other fields are the prompt's columns.

    Raises:
        ConfigError: a field is missing or wrong; the message names it.
    """
    row = _made_by_hand(row) if "responses" in row and "candidates" not in row else row
    for name in ("id", "prompt", "candidates"):
        if name not in row:
            raise ConfigError(f"the row has no field {name!r}")
    if not isinstance(row["id"], str):
        raise ConfigError(f"the row's field 'id' must be text, not {row['id']!r}")
    columns = plain(_validated(_COLUMNS, row.get("columns", {}), "columns"))
    prompt = as_prompt(written(row["prompt"]), row["id"], columns)
    candidates = _validated(_CANDIDATES, row["candidates"], "candidates")
    _check_numbering(candidates)
    seconds = _validated(_SECONDS, row.get("seconds", {}), "seconds")
    names = [name for name in _Chosen.model_fields if name in row]
    if not candidates and row.get("error") is None:
        raise ConfigError("the row's field 'candidates' is empty; a pool needs at least one")
    if not names:
        return Pool(prompt, candidates, seconds=seconds)
    chosen = _validated(_CHOSEN, {name: row[name] for name in names})
    usage = _validated(_USAGE, row.get("usage", {}), "usage")
    selection = Selection(prompt, candidates, seconds=seconds, usage=usage, **chosen.model_dump())
    _check_choice(selection)
    return selection


def _made_by_hand(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as `to_row` would have made it, all but what scores add."""
    if "prompt" not in row:
        raise ConfigError("the row has no field 'prompt'")
    responses, known = row["responses"], row.get("id")
    if not isinstance(responses, list) or not responses:
        raise ConfigError("the row's field 'responses' must be a list of at least one response")
    prompt = as_prompt(row["prompt"])
    others = {name: value for name, value in row.items() if name not in BY_HAND}
    return {
        "id": prompt.id if known is None else str(known) if type(known) is int else known,
        "prompt": as_turns(prompt.messages),
        "columns": others | _validated(_COLUMNS, row.get("columns", {}), "columns"),
        "candidates": [_response(place, response) for place, response in enumerate(responses)],
    }


def _response(place: int, response: Any) -> dict[str, Any]:
    if isinstance(response, Mapping) and "text" in response and "type" not in response:
        return {**response, "index": place}
    try:
        return {"index": place, "text": answer_text(response)}
    except ConfigError as error:
        raise ConfigError(f"the row's field 'responses.{place}' is wrong: {error}") from None


def _validated(adapter: TypeAdapter[T], value: Any, *field: str) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*field, *first["loc"])))
        raise ConfigError(f"the row's field {where!r} is wrong: {first['msg']}") from None


def _check_numbering(candidates: list[Candidate]) -> None:
    places = [candidate.index for candidate in candidates]
    if places != list(range(len(places))):
        raise ConfigError(f"the row's candidates must be numbered from 0, not {places}")
    for name in ("mean_logprob", "sum_logprob"):
        for candidate in candidates:
            number = getattr(candidate, name)
            if number is not None and not isfinite(number):
                where = f"candidates.{candidate.index}.{name}"
                raise ConfigError(f"the row's field {where!r} must be finite, not {number}")


def _check_choice(selection: Selection) -> None:
    if not 0 <= selection.index < max(1, len(selection.candidates)):
        raise ConfigError(f"the row's index {selection.index!r} is none of its candidates")
    unscored = [c.index for c in selection.candidates if selection.reward not in c.scores]
    if unscored:
        raise ConfigError(f"candidate {unscored[0]} has no score named {selection.reward!r}")


def loads(line: str | bytes) -> Pool:
    """The pool in one line of JSON.

    Raises:
        ConfigError: it is no JSON object, or no row.
    """
    data = line if isinstance(line, bytes) else clean(line).encode()
    try:
        row = json.loads(data)
        if ESCAPED.search(data):
            row = json.loads(clean(json.dumps(row, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"a row is a JSON object, not {type(row).__name__}")
    return from_row(row)
