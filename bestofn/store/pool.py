"""Pools of candidates as rows of a file, read with the scores that are kept beside it.

A row is the candidates of a prompt, and perhaps which was selected. A pool file is never rewritten.
Beside POOL each score name has an append-only file, `POOL.run/scores/NAME.jsonl`, with a row for
each pool row that is scored, and NAME.json, which says how its scores are made. Reading a pool
joins them; to score again, the file is deleted.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from hashlib import blake2b
from math import isnan
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from bestofn.errors import ConfigError
from bestofn.prompts import answer_text, as_given, as_prompt, as_turns, clean, plain, written
from bestofn.store.journal import SCORES, beside, read_beside, write_beside, writing
from bestofn.tools import as_tools
from bestofn.types import Candidate, Pool, Score, Selection, Usage

T = TypeVar("T")
ScoreOrigin = dict[str, Any]
"""How scores are made: reward, options, model, verifier and what these do not show."""
BadRow = Callable[[ConfigError], None]
BY_HAND = ("id", "prompt", "responses", "columns")
CHOICE = {"index", "reward", "tie", "fallback", "error"}
ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair in JSON; nothing else can bring one in."""
REPLACES = "replaces"
"""Says that scores of that name in the pool file itself do not count any more."""


# --- rows as JSON ---------------------------------------------------------------------------------


def to_row(pool: Pool) -> dict[str, Any]:
    """The pool as an object that JSON can hold; a failed score's value is null.

    A Selection's row also says which candidate was chosen, and what it says.
    """
    prompt = pool.prompt
    row: dict[str, Any] = {"id": prompt.id, "prompt": as_given(prompt.messages)}
    if prompt.tools:
        row["tools"] = list(prompt.tools)
    if prompt.columns:
        row["columns"] = plain(prompt.columns)
    if isinstance(pool, Selection):
        row |= {"index": pool.index, "response": pool.text, "reward": pool.reward}
        row |= {"tie": pool.tie, "fallback": pool.fallback, "error": pool.error}
        row["usage"] = dict(_fields(pool.usage))
    row["candidates"] = [_candidate_row(candidate) for candidate in pool.candidates]
    if pool.seconds:
        row["seconds"] = pool.seconds
    return row


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    """The candidate without what is unknown or zero: large pools have many scores."""
    row = {name: value for name, value in _fields(candidate) if value is not None}
    row["usage"] = _known(candidate.usage)
    row["scores"] = {name: _score_row(score) for name, score in candidate.scores.items()}
    return row


def _score_row(score: Score) -> dict[str, Any]:
    parts = dict(_fields(score)) | {"usage": _known(score.usage)}
    value = None if isnan(parts.pop("value")) else score.value
    return {"value": value} | {n: part for n, part in parts.items() if part not in (None, [], {})}


def _known(usage: Usage) -> dict[str, Any]:
    return {name: value for name, value in _fields(usage) if value}


def _fields(item: Candidate | Score | Usage) -> Iterator[tuple[str, Any]]:
    """Name and value of each field; `dataclasses.asdict` takes ten times as long."""
    return ((name, getattr(item, name)) for name in item.__slots__)


def dumps(pool: Pool) -> str:
    """The row as one line of JSON, without its line break."""
    return as_line(to_row(pool))


def as_line(row: Mapping[str, Any]) -> str:
    """A row that is an object already, as one line of JSON."""
    return clean(json.dumps(row, ensure_ascii=False, allow_nan=False, default=plain))


# --- rows from JSON -------------------------------------------------------------------------------


def _score(row: Any) -> Any:
    """A score's row; without a value, or with null for it, the score has failed."""
    if isinstance(row, Mapping) and row.get("value") is None:
        known = {name: part for name, part in row.items() if name != "value"}
        return {"reason": "the row has no value"} | known
    return row


def _scored(candidate: Any) -> Any:
    scores = candidate.get("scores") if isinstance(candidate, Mapping) else None
    if not isinstance(scores, Mapping):
        return candidate
    return {**candidate, "scores": {name: _score(score) for name, score in scores.items()}}


_Candidate = Annotated[Candidate, BeforeValidator(_scored)]


class _Row(BaseModel):
    """Numbers are finite, those in candidates too."""

    model_config = ConfigDict(allow_inf_nan=False)

    id: str
    prompt: Any
    columns: dict[str, Any] = {}
    tools: Any = None
    candidates: list[_Candidate]
    seconds: dict[str, float] = {}
    error: str | None = None


class _Selected(_Row):
    index: int
    reward: str
    tie: bool = False
    fallback: bool = False
    usage: Usage = Usage()


_ROW, _SELECTED = TypeAdapter(_Row), TypeAdapter[_Row](_Selected)
_CANDIDATE = TypeAdapter[Candidate](_Candidate)
_SCORES = TypeAdapter(list[Annotated[Score, BeforeValidator(_score)]])


def _validated(adapter: TypeAdapter[T], value: Any, *field: str) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*field, *first["loc"])))
        if first["type"] == "missing":
            raise ConfigError(f"the row has no field {where!r}") from None
        raise ConfigError(f"the row's field {where!r} is wrong: {first['msg']}") from None


def as_candidate(fields: Mapping[str, Any]) -> Candidate:
    """A candidate of these fields; raises ConfigError, which names what is missing or wrong."""
    return _validated(_CANDIDATE, fields)


def from_row(row: Mapping[str, Any]) -> Pool:
    """The pool that `to_row` made the row of; a Selection if the row says what was chosen.

    Or the pool of a row made by hand, with `prompt` and `responses`, which are texts, objects with
    a `text`, or chat messages. It needs no `id`, and its other fields are the prompt's columns.

    Raises:
        ConfigError: a field is missing or wrong; the message names it.
    """
    row = _made_by_hand(row) if "responses" in row and "candidates" not in row else row
    found = _validated(_SELECTED if CHOICE & row.keys() else _ROW, row)
    candidates, columns = found.candidates, plain(found.columns)
    prompt = as_prompt(written(found.prompt), found.id, columns, as_tools(found.tools))
    places = [candidate.index for candidate in candidates]
    if places != list(range(len(places))):
        raise ConfigError(f"the row's candidates must be numbered from 0, not {places}")
    if not candidates and found.error is None:
        raise ConfigError("the row's field 'candidates' is empty; a pool needs at least one")
    if not isinstance(found, _Selected):
        return Pool(prompt, candidates, seconds=found.seconds)
    if not 0 <= found.index < max(1, len(candidates)):
        raise ConfigError(f"the row's index {found.index} is none of its candidates")
    for candidate in candidates:
        candidate.scores.setdefault(found.reward, Score(reason="the row has no score"))
    how = {name: getattr(found, name) for name in ("tie", "fallback", "usage", "error", "seconds")}
    return Selection(prompt, candidates, found.index, found.reward, **how)


def _made_by_hand(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as `to_row` would have made it, all but what scores add."""
    responses, known = row["responses"], row.get("id")
    if "prompt" not in row:
        raise ConfigError("the row has no field 'prompt'")
    if not isinstance(responses, list) or not responses:
        raise ConfigError("the row's field 'responses' must be a list of at least one response")
    prompt = as_prompt(row["prompt"])
    others = {name: value for name, value in row.items() if name not in BY_HAND}
    columns = row.get("columns") or {}
    if not isinstance(columns, Mapping):
        raise ConfigError("the row's field 'columns' must be an object")
    return {
        "id": prompt.id if known is None else str(known) if type(known) is int else known,
        "prompt": as_turns(prompt.messages),
        "columns": others | dict(columns),
        "candidates": [_response(place, response) for place, response in enumerate(responses)],
    }


def _response(place: int, response: Any) -> dict[str, Any]:
    if isinstance(response, Mapping) and "text" in response and "type" not in response:
        return {**response, "index": place}
    try:
        return {"index": place, "text": answer_text(response)}
    except ConfigError as error:
        raise ConfigError(f"the row's field 'responses.{place}' is wrong: {error}") from None


def loads(line: str | bytes) -> Pool:
    """The pool in one line of JSON; raises ConfigError where it is no row."""
    data = line if isinstance(line, bytes) else clean(line).encode()
    try:
        row = json.loads(data, parse_constant=lambda _: None)  # NaN is null
        if ESCAPED.search(data):
            row = json.loads(clean(json.dumps(row, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"a row is a JSON object, not {type(row).__name__}")
    return from_row(row)


# --- files ----------------------------------------------------------------------------------------


def read(path: Path, bad_row: BadRow | None = None) -> Iterator[Pool]:
    """The rows of a JSONL file, one at a time, with all their scores.

    A row that cannot be used is given to `bad_row` and left out; by default it is an error.

    Raises:
        ConfigError: the file is unreadable, or a row is wrong; the message names file, line and
            field.
    """
    seen: dict[str, int] = {}
    told = bad_row or _refuse
    for number, pool in _rows(path, told, told):
        where, name = f"{path}, line {number}", pool.prompt.id
        if not pool.candidates:
            error = getattr(pool, "error", None)
            told(ConfigError(f"{where}: the row has no candidates: {error}"))
        elif name in seen:
            told(ConfigError(f"{where}: the id {name!r} is in line {seen[name]} already"))
        else:
            seen[name] = number
            yield pool


def stream(path: Path, cut_off: BadRow = lambda _: None, *, scores: bool = True) -> Iterator[Pool]:
    """The rows of a file that a run may still be writing, those without candidates too.

    Ids are not compared, so that memory stays flat in the number of rows. A last line that is cut
    off is left out and given to `cut_off`. Without `scores` those in
    files of their own are not read.

    Raises:
        ConfigError: what `read` raises of files and rows.
    """
    return (pool for _, pool in _rows(path, _refuse, cut_off, scores=scores))


def _refuse(error: ConfigError) -> None:
    raise error from None


def _rows(
    path: Path, bad_row: BadRow, cut_off: BadRow, *, scores: bool = True
) -> Iterator[tuple[int, Pool]]:
    """The rows of lines that are not blank, numbered from 1."""
    scored = score_files(path) if scores else []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    pool = loads(line)
                except ConfigError as error:
                    if line.endswith(b"\n") or not str(error).startswith("not JSON"):
                        bad_row(ConfigError(f"{where}: {error}"))
                    else:
                        again = "rerun the command that wrote it to resume, or remove the line"
                        cut_off(ConfigError(f"{where}: the last line is cut off; {again}"))
                    continue
                for file_scores in scored:
                    file_scores.add_to(pool)
                yield number, pool
    except OSError as error:
        raise ConfigError(f"the pool {path} cannot be read: {error.strerror}") from None


# --- scores ---------------------------------------------------------------------------------------


class ScoreFile:
    """The scores of one name beside a pool file; `origin` is empty where that is not known."""

    def __init__(self, pool: Path, name: str) -> None:
        self.name = name
        self._pool, stem = pool, f"scores/{quote(name, safe=' @,+=()')}"
        self.path, self._about = beside(pool, f"{stem}.jsonl"), f"{stem}.json"
        self.origin: ScoreOrigin = read_beside(pool, self._about) or {}
        self._replaces = bool(self.origin.pop(REPLACES, False))

    def begin(self, origin: ScoreOrigin) -> None:
        """Keeps how the scores are made."""
        self.origin = origin
        write_beside(self._pool, self._about, origin | ({REPLACES: True} if self._replaces else {}))

    def replace(self) -> None:
        """Deletes the scores, and drops those of that name in the pool file itself."""
        # In this order: scores whose making is forgotten would be mixed with others.
        with writing(self.path):
            self.path.unlink(missing_ok=True)
        self._replaces = True
        self.begin({})

    def line(self, pool: Pool) -> str:
        """The row of a pool's scores, as one line of JSON."""
        row: dict[str, Any] = {"id": pool.prompt.id, "of": _digest(pool)}
        row["scores"] = [_score_row(candidate.scores[self.name]) for candidate in pool.candidates]
        if seconds := pool.seconds.get(self.name):
            row["seconds"] = seconds
        return as_line(row)

    def add_to(self, pool: Pool) -> None:
        """Sets a pool's scores to those in the file, if it has any for these candidates."""
        try:
            row = self._row(pool.prompt.id)
            known = row.get("of") == _digest(pool)
            if known or self._replaces:
                pool.seconds.pop(self.name, None)
                for candidate in pool.candidates:
                    candidate.scores.pop(self.name, None)
            if known:
                scores = _validated(_SCORES, row["scores"])
                for candidate, score in zip(pool.candidates, scores, strict=True):
                    candidate.scores[self.name] = score
                if "seconds" in row:
                    pool.seconds[self.name] = float(row["seconds"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"the scores of {pool.prompt.id!r} in {self.path} are wrong: {error}; delete the "
                "file to score again"
            ) from None

    def _row(self, id: str) -> dict[str, Any]:
        if id not in self._offsets:
            return {}
        self._file.seek(self._offsets[id])
        return dict(json.loads(self._file.readline()))

    @cached_property
    def _file(self) -> BinaryIO:
        return self.path.open("rb")

    @cached_property
    def _offsets(self) -> dict[str, int]:
        """Where in the file each row is; of a row that was scored again, the last one."""
        offsets: dict[str, int] = {}
        place = 0
        for line in self._file if self.path.exists() else ():
            if line.endswith(b"\n"):  # else it is cut off, and is scored again
                offsets[json.loads(line)["id"]] = place
            place += len(line)
        return offsets


def score_files(pool: Path) -> list[ScoreFile]:
    """The score files beside a pool file."""
    places = sorted(beside(pool, "scores").glob("*.json"))
    return [ScoreFile(pool, unquote(place.stem)) for place in places]


def read_origins(pool: Path) -> dict[str, ScoreOrigin]:
    """How the scores of a pool are made by their names, as far as it is known."""
    in_rows = read_beside(pool, SCORES) or {}
    return in_rows | {file.name: file.origin for file in score_files(pool) if file.origin}


def _digest(pool: Pool) -> str:
    """A hash of what is scored, so that scores of candidates that were drawn again are dropped."""
    texts = [[candidate.text, candidate.error] for candidate in pool.candidates]
    return blake2b(json.dumps(texts).encode(), digest_size=6).hexdigest()
