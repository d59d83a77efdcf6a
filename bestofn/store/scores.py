"""Score files: the scores of one name on a pool, in a file of their own beside it.

A pool file is never rewritten. Beside POOL each score name has an append-only file,
`POOL.run/scores/NAME.jsonl`, with a row for each pool row that is scored, and NAME.json, which says
how its scores are made. Reading a pool joins them; to score again, the file is deleted.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from bestofn.errors import ConfigError
from bestofn.store.journal import beside, cannot_write, write_atomically
from bestofn.store.row import as_line, as_scores, score_row
from bestofn.types import Pool

ScoreOrigin = dict[str, Any]
"""How scores are made: reward, options, model, verifier and what these do not show."""
REPLACES = "replaces"
"""Says that scores of that name in the pool file itself do not count any more."""


class ScoreFile:
    """The scores of one name beside a pool file.

    Attributes:
        name: Of the scores.
        path: The file.
    """

    def __init__(self, pool: Path, name: str) -> None:
        self.name = name
        self.path = _folder(pool) / f"{quote(name, safe=' @,+=()')}.jsonl"
        self._offsets: dict[str, int] | None = None
        self._file: BinaryIO | None = None
        self._replaces: bool | None = None

    @property
    def origin(self) -> ScoreOrigin:
        """How its scores are made, empty where that is not known."""
        return {name: value for name, value in self._kept().items() if name != REPLACES}

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Keeps how the scores are made.

        Raises:
            BestOfNError: it cannot be written.
        """
        kept = self._kept()
        _write(self._place, {**origin, **{k: v for k, v in kept.items() if k == REPLACES}})

    def replace(self) -> None:
        """Deletes the scores, and drops those of that name in the pool file itself.

        Raises:
            BestOfNError: they cannot be deleted.
        """
        try:
            # In this order: scores whose making is forgotten would be mixed with others.
            self.path.unlink(missing_ok=True)
            _write(self._place, {REPLACES: True})
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @property
    def _place(self) -> Path:
        return self.path.with_suffix(".json")

    def _kept(self) -> dict[str, Any]:
        return _object(self._place)

    def line(self, pool: Pool) -> str:
        """The row of a pool's scores, as one line of JSON."""
        row: dict[str, Any] = {"id": pool.prompt.id, "of": _digest(pool)}
        row["scores"] = [score_row(candidate.scores[self.name]) for candidate in pool.candidates]
        if seconds := pool.seconds.get(self.name):
            row["seconds"] = seconds
        return as_line(row)

    def add_to(self, pool: Pool) -> None:
        """Sets a pool's scores to those in the file, if it has any for these candidates.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self._replaces is None:
            self._replaces = bool(self._kept().get(REPLACES))
        row = self._row(pool.prompt.id)
        if row is None or row.get("of") != _digest(pool):
            if self._replaces:
                pool.seconds.pop(self.name, None)
                for candidate in pool.candidates:
                    candidate.scores.pop(self.name, None)
            return
        try:
            scores = as_scores(row["scores"])
            for candidate, score in zip(pool.candidates, scores, strict=True):
                candidate.scores[self.name] = score
        except (ConfigError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{self.path}, the row {pool.prompt.id!r} is wrong: {error}"
            ) from None
        if isinstance(seconds := row.get("seconds"), int | float):
            pool.seconds[self.name] = float(seconds)

    def _row(self, id: str) -> dict[str, Any] | None:
        if self._offsets is None:
            self._offsets = self._index()
        if id not in self._offsets or self._file is None:
            return None
        self._file.seek(self._offsets[id])
        return dict(json.loads(self._file.readline()))

    def _index(self) -> dict[str, int]:
        """Where in the file each row is; of a row that was scored again, the last one."""
        offsets: dict[str, int] = {}
        try:
            self._file = self.path.open("rb")
            place = 0
            for line in self._file:
                if line.endswith(b"\n"):  # else it is cut off, and is scored again
                    offsets[json.loads(line)["id"]] = place
                place += len(line)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"the scores {self.path} cannot be read: {error}; delete the file to score again"
            ) from None
        return offsets


def score_files(pool: Path) -> list[ScoreFile]:
    """The score files beside a pool file."""
    return [ScoreFile(pool, unquote(path.stem)) for path in sorted(_folder(pool).glob("*.json"))]


def read_origins(pool: Path) -> dict[str, ScoreOrigin]:
    """How the scores of a pool are made by their names, as far as it is known."""
    in_rows = _object(beside(pool, "scores.json")) or _object(
        pool.with_name(pool.name + ".scores.json")  # where version 0.1 kept it
    )
    return in_rows | {file.name: file.origin for file in score_files(pool) if file.origin}


def write_origins_of_rows(pool: Path, origins: Mapping[str, ScoreOrigin]) -> None:
    """Keeps how the scores are made that are in the pool file itself.

    Raises:
        BestOfNError: it cannot be written.
    """
    _write(beside(pool, "scores.json"), origins)


def _folder(pool: Path) -> Path:
    return beside(pool, "scores")


def _digest(pool: Pool) -> str:
    """A hash of what is scored, so that scores of candidates that were drawn again are dropped."""
    texts = [[candidate.text, candidate.error] for candidate in pool.candidates]
    return blake2b(json.dumps(texts).encode(), digest_size=6).hexdigest()


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
