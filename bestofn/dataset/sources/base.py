"""What every source comes down to: parts, each a stream of rows and of faults by their place."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from bestofn.errors import ConfigError
from bestofn.prompts import PromptLike

FORMS = (
    "a JSONL file or a JSON array, a CSV or TSV file (each also .gz, .zst, .bz2 or .xz), a Parquet "
    "file, a folder of these or of save_to_disk, '-' for JSON on standard input, "
    "'hf:NAME[:CONFIG][:SPLIT]', 'hf://' and a file on the hub, or 'tiny:COUNT'"
)
INSTALL = "pip install 'bestofn[datasets]'"
LONGEST = 400  # characters of a fault, without its place; a row can be a megabyte


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        where: Its place, such as "prompts.jsonl, line 7" or "prompts.parquet, row 6"; lines count
            from 1, rows from 0.
        values: Its columns by name.
    """

    where: str
    values: Mapping[str, Any]


Source = str | PathLike[str] | Iterable[Row | Mapping[str, Any] | PromptLike]
Entry = Row | ConfigError
"""A row, or what is wrong with it, its place named."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or another source that is read in one go.

    Attributes:
        name: How messages call it.
        entries: Reads it from its beginning.
        columns: What all of its rows have; None where each row says for itself.
    """

    name: str
    entries: Callable[[], Iterator[Entry]]
    columns: tuple[str, ...] | None = None


def fault(where: str, sentence: str) -> ConfigError:
    """What is wrong with one row, in one line."""
    line = " ".join(sentence.split())
    return ConfigError(f"{where}: {line if len(line) <= LONGEST else line[: LONGEST - 3] + '...'}")


def unreadable(name: object, error: Exception | str) -> ConfigError:
    """What is wrong with a whole source."""
    return ConfigError(f"the prompts {name} cannot be read: {' '.join(str(error).split())}")
