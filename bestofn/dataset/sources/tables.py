"""Files whose rows all have the same columns: CSV, TSV and Parquet."""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from bestofn.dataset.sources.base import Entry, Part, Row, fault, unreadable
from bestofn.dataset.sources.packed import (
    PARQUET,
    READ_ERRORS,
    Content,
    as_said,
    first_bytes,
    kind_by_bytes,
    open_unpacked,
)
from bestofn.errors import ConfigError

LONGEST_CELL = 1 << 24  # characters; a quote that is never closed takes in no more
BATCH = 256  # rows of a Parquet file that are held at once
BUFFER = 1 << 17  # bytes of each of its columns


# --- CSV and TSV ----------------------------------------------------------------------------------


def csv_part(path: Path, delimiter: str) -> Part:
    """A CSV or TSV file; all of its values are text.

    Raises:
        ConfigError: it cannot be read, or its header is wrong.
    """
    try:
        with open_unpacked(path) as file:
            columns, _ = _header(str(path), _Lines(file), delimiter)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None
    return Part(str(path), partial(_csv_entries, path, delimiter), columns)


class _Lines:
    """The lines of a file for `csv.reader`, those of a broken record once more.

    A quote that is not closed takes the lines after it into its cell; `step_back` gives them back.

    Attributes:
        number: Of the line read last, from 1.
    """

    def __init__(self, file: Content) -> None:
        # Bytes that are no UTF-8 become lone surrogates, which `_is_text` finds in their row.
        self._lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        self._record: list[str] = []
        self._again: list[str] = []
        self.number = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self._record.append(line)
        self.number += 1
        return line

    def start_record(self) -> int:
        """The number of the line with which the next record begins."""
        self._record.clear()
        return self.number + 1

    def step_back(self) -> None:
        """Goes on with the second line of the record."""
        again = self._record[1:]
        self._again.extend(reversed(again))
        self.number -= len(again)


def _header(name: str, lines: _Lines, delimiter: str) -> tuple[tuple[str, ...], Iterator[Entry]]:
    """The names of the columns, and the rows below them."""
    # The limit is one for all readers of the process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = tuple(next((cells for cells in reader if cells), ()))
    except csv.Error as error:
        raise fault(f"{name}, line 1", _not_csv(error)) from None
    where = f"{name}, line {lines.number}"
    if not columns:
        raise ConfigError(f"{name} is empty; its first line names the columns")
    if not _is_text(columns):
        raise fault(where, "the header is not UTF-8; save the file as UTF-8")
    for number, column in enumerate(columns, 1):
        if not column.strip():
            raise fault(where, f"the header gives column {number} no name")
        if column in columns[: number - 1]:
            raise fault(where, f"the header has the column {column!r} twice")
    return columns, _records(name, lines, reader, columns)


def _records(name: str, lines: _Lines, reader: Any, columns: tuple[str, ...]) -> Iterator[Entry]:
    while True:
        where = f"{name}, line {lines.start_record()}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.step_back()
            yield fault(where, _not_csv(error))
            continue
        if not cells:
            continue
        if not _is_text(cells):
            yield fault(where, "not UTF-8")
        elif len(cells) != len(columns):
            count = f"{len(cells)} cell" + "s" * (len(cells) != 1)
            yield fault(where, f"{count}, but the header has {len(columns)}; is a quote missing?")
        else:
            yield Row(where, dict(zip(columns, cells, strict=True)))


def _csv_entries(path: Path, delimiter: str) -> Iterator[Entry]:
    try:
        with open_unpacked(path) as file:
            _, entries = _header(str(path), _Lines(file), delimiter)
            yield from entries
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def _not_csv(error: csv.Error) -> str:
    return f"not CSV: {error}; is a quote not closed, or one inside a quoted cell not doubled?"


def _is_text(cells: list[str] | tuple[str, ...]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


# --- Parquet --------------------------------------------------------------------------------------


def parquet_part(path: Path) -> Part:
    """A Parquet file.

    Raises:
        ConfigError: it cannot be read, or pyarrow is missing.
    """
    with closing(_open_parquet(path)) as file:
        columns = tuple(file.schema_arrow.names)
    return Part(str(path), partial(_parquet_entries, path), columns)


def parquet_count(path: Path) -> int:
    """How many rows it has."""
    with closing(_open_parquet(path)) as file:
        return int(file.metadata.num_rows)


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet files need: pip install 'bestofn[datasets]'") from None
    try:
        head = first_bytes(path)
        if head and (kind := kind_by_bytes(head)) != PARQUET:
            raise unreadable(path, f"by its first bytes it is {as_said(kind)}, not Parquet")
        # With pre_buffer, the default, all of the file that was read is kept to its end.
        return pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from None


def _parquet_entries(path: Path) -> Iterator[Entry]:
    import pyarrow

    number = 0
    try:
        with closing(_open_parquet(path)) as file:
            for batch in file.iter_batches(BATCH):
                for index, values in enumerate(_values(batch)):
                    where = f"{path}, row {number + index}"
                    if isinstance(values, Exception):
                        yield fault(where, f"it has a value that cannot be read: {values}")
                    else:
                        yield Row(where, values)
                number += len(batch)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from None


def _values(batch: Any) -> list[Any]:
    """The rows of a batch, each alone if there is one that cannot be had, such as broken text."""
    try:
        rows: list[Any] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if len(batch) == 1:
            return [error]
        return [row for index in range(len(batch)) for row in _values(batch.slice(index, 1))]
    return rows
