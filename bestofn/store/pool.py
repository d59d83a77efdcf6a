"""Pool files: rows of candidates, read with the scores that are kept beside them."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bestofn.errors import ConfigError
from bestofn.store.row import as_candidate, as_line, dumps, from_row, loads, to_row
from bestofn.store.scores import score_files
from bestofn.types import Pool, Selection

__all__ = ["as_candidate", "as_line", "dumps", "from_row", "loads", "read", "stream", "to_row"]


def read(path: Path, bad_row: Callable[[ConfigError], None] | None = None) -> Iterator[Pool]:
    """The rows of a JSONL file, which may be gzipped, one at a time, with all their scores.

    Args:
        path: The file; its name ends in .gz if it is gzipped.
        bad_row: Told of each row that cannot be used, which is then left out; by default the
            first one is an error.

    Raises:
        ConfigError: the file cannot be read, or a row is wrong; the message names file, line and
            field.
    """
    seen = dict[str, int]()
    scored = score_files(path)
    for number, line in _lines(path):
        try:
            pool = _loads_whole(line)
            if isinstance(pool, Selection) and not pool.candidates:
                raise ConfigError(f"the row has no candidates: {pool.error}")
            if pool.prompt.id in seen:
                raise ConfigError(
                    f"the id {pool.prompt.id!r} is in line {seen[pool.prompt.id]} already; each "
                    "row needs an id of its own"
                )
        except ConfigError as error:
            named = ConfigError(f"{path}, line {number}: {error}")
            if bad_row is None:
                raise named from None
            bad_row(named)
        else:
            seen[pool.prompt.id] = number
            for scores in scored:
                scores.add_to(pool)
            yield pool


def stream(path: Path, cut_off: Callable[[ConfigError], None]) -> Iterator[Pool]:
    """The rows of a file that a run may still be writing, those without candidates too.

    Ids are not compared, so that memory stays flat in the number of rows.

    Args:
        path: The file; its name ends in .gz if it is gzipped.
        cut_off: Told of a last line that is cut off, which is then left out.

    Raises:
        ConfigError: what `read` raises of files and rows.
    """
    scored = score_files(path)
    for number, line in _lines(path):
        try:
            pool = _loads_whole(line)
        except ConfigError as error:
            named = ConfigError(f"{path}, line {number}: {error}")
            if not isinstance(error, _CutOffError):
                raise named from None
            cut_off(named)
        else:
            for scores in scored:
                scores.add_to(pool)
            yield pool


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1, with their line breaks."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the pool {path} cannot be read: {reason}") from None


class _CutOffError(ConfigError):
    """A line is cut off."""


def _loads_whole(line: bytes) -> Pool:
    """A line that was cut off, as by a full disk or a killed run, says so."""
    try:
        return loads(line)
    except ConfigError as error:
        if line.endswith(b"\n") or not str(error).startswith("not JSON"):
            raise
        raise _CutOffError(
            "the last line is cut off; run the command that wrote the file again to go on from "
            "there, or remove the line"
        ) from None
