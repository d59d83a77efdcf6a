"""Rows of files, one at a time: JSON lines, CSV, Parquet, plain or compressed."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bestofn.errors import ConfigError

JSON_KINDS = (".jsonl", ".ndjson", ".json")
TABLE_KINDS = {".csv": ",", ".tsv": "\t"}
COMPRESSED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"
LONGEST_CELL = 2**31 - 1  # the csv module's own limit is less than a long text


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Attributes:
        where: Names it, such as "prompts.jsonl, line 7".
        values: By column; in a source that is no file it may also be a prompt itself.
        fixed: Whether all rows of its file have the same columns.
    """

    where: str
    values: Any
    fixed: bool = False


Found = Row | ConfigError
"""A row, or what is wrong with one."""


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file, whether or not it is compressed."""
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix


def is_known(path: Path) -> bool:
    """Whether a file's name says that it holds rows."""
    return kind_of(path) in (*JSON_KINDS, *TABLE_KINDS, ".parquet")


def file_rows(path: Path) -> Iterator[Found]:
    """The rows of a file; one of no known kind is read as JSON lines.

    Raises:
        ConfigError: the file cannot be read.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    with _opened(path) as file:
        if kind in TABLE_KINDS:
            yield from _table_rows(file, path, TABLE_KINDS[kind])
        elif kind == ".json" and _begins_list(file):
            yield from _list_rows(file, path)
        else:
            yield from json_rows(file, str(path))


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    broken: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open}
    if path.suffix == ".zst":
        zstandard = _zstandard()
        openers[".zst"] = zstandard.open
        broken += (zstandard.ZstdError,)
    try:
        with openers.get(path.suffix, _open)(path) as raw:
            yield io.BufferedReader(raw)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except broken as error:
        raise ConfigError(f"the file {path} cannot be read: {error}") from None


def _open(path: Path) -> IO[bytes]:
    return path.open("rb", buffering=0)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError(".zst files need: pip install 'bestofn[datasets]'") from None
    return zstandard


def json_rows(lines: Iterable[bytes], name: str) -> Iterator[Found]:
    """The rows of JSON lines; blank lines are none."""
    for number, line in enumerate(lines, 1):
        data = line.removeprefix(BOM) if number == 1 else line
        if data.strip():
            yield _object(data, f"{name}, line {number}")


def _object(line: bytes, where: str) -> Found:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return ConfigError(f"{where}: not UTF-8: {error.reason} at byte {error.start}")
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "; perhaps the file is cut off here"
        return ConfigError(f"{where}: not JSON: {getattr(error, 'msg', error)}{cut}")
    if not isinstance(row, dict):
        return ConfigError(f"{where}: a row is a JSON object, not {type(row).__name__}")
    return Row(where, row)


def _begins_list(file: io.BufferedReader) -> bool:
    return file.peek(64).removeprefix(BOM).lstrip().startswith(b"[")


def _list_rows(file: IO[bytes], path: Path) -> Iterator[Found]:
    """The rows of a file that is one JSON list, which has to be read whole."""
    try:
        rows = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {getattr(error, 'msg', error)}") from None
    for number, row in enumerate(rows):
        where = f"{path}, row {number}"
        if isinstance(row, dict):
            yield Row(where, row)
        else:
            yield ConfigError(f"{where}: a row is a JSON object, not {type(row).__name__}")


def _table_rows(file: Iterable[bytes], path: Path, delimiter: str) -> Iterator[Found]:
    """The rows of CSV or TSV; all values are text."""
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(_decoded(file), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise ConfigError(f"{path}, line 1: {error}") from None
    if not all(header) or len(set(header)) < len(header):
        raise ConfigError(f"{path}, line 1: column names must be given and differ, not {header}")
    while True:
        where = f"{path}, line {rows.line_num + 1}"
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield ConfigError(f"{where}: {error}")
            continue
        if len(cells) not in (0, len(header)):
            cells_of = f"the row has {len(cells)} cells, the header {len(header)}"
            yield ConfigError(f"{where}: {cells_of}")
        elif any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell):
            yield ConfigError(f"{where}: not UTF-8")
        elif cells:
            yield Row(where, dict(zip(header, cells, strict=True)), fixed=True)


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """Lines of text; bytes that are none become surrogates, so that only their row is lost."""
    for number, line in enumerate(lines):
        data = line if number else line.removeprefix(BOM)
        yield data.decode("utf-8", "surrogateescape")


def _parquet_rows(path: Path) -> Iterator[Found]:
    parquet = _pyarrow_parquet()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    yield Row(f"{path}, row {number}", values, fixed=True)
                    number += 1
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        sentence = " ".join(str(error).split())
        raise ConfigError(f"the file {path} cannot be read: {sentence}") from None


def parquet_count(path: Path) -> int | None:
    """How many rows a Parquet file has, None if it cannot be told."""
    try:
        return int(_pyarrow_parquet().read_metadata(path).num_rows)
    except (OSError, ValueError):
        return None


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet files need: pip install 'bestofn[datasets]'") from None
    return pyarrow.parquet


def line_count(path: Path) -> int | None:
    """How many lines a plain file has, None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None
