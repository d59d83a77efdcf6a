"""Rows of files: JSON, CSV, TSV and Parquet, packed or not, known by their first bytes."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from bestofn.dataset.sources.base import INSTALL, Entry, Part, Row, fault, unreadable
from bestofn.errors import ConfigError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PACKED = (".gz", ".zst", ".bz2", ".xz")
PARQUET = "a Parquet file"
SIGNS: dict[str, bytes | tuple[bytes, ...]] = {
    ".gz": b"\x1f\x8b",
    ".zst": (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"),  # pzstd begins with a skippable frame
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\x00",
    PARQUET: b"PAR1",
    "an Arrow file; give the folder that save_to_disk wrote": (b"ARROW1", b"\xff\xff\xff\xff"),
    "a ZIP archive; unpack it": b"PK\x03\x04",
    "a Git LFS pointer; run `git lfs pull`": b"version https://git-lfs",
    "UTF-16 text; save it as UTF-8": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""How files of a kind begin: packed ones by suffix, others by what messages call them."""
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""What datasets have beside their rows."""
BESIDE = (".manifest.json", ".scores.json")
"""What our own files have beside them."""

CHUNK = 1 << 16  # characters of an array that are read at once
NEAR_THE_END = 16  # characters before its end at which a text that is cut off may break
BLANKS = re.compile(r"\s*")
LONGEST_CELL = 1 << 24  # characters
BATCH = 256  # rows of a Parquet file that are held at once
BUFFER = 1 << 17  # bytes of each of its columns


def files_of(path: Path) -> list[Path]:
    """The file itself, or those of a folder and its `data` that hold rows, in order."""
    if not path.is_dir():
        return [path]
    folders = [folder for folder in (path, path / "data") if folder.is_dir()]
    return sorted(file for folder in folders for file in folder.iterdir() if _holds_rows(file))


def _holds_rows(path: Path) -> bool:
    known = content_suffix(path) in (".jsonl", ".json", ".ndjson", *DELIMITERS)
    beside = path.name in METADATA or any(
        path.name.endswith(end) and path.with_name(path.name.removesuffix(end)).exists()
        for end in BESIDE
    )
    is_table = path.suffix.lower() == ".parquet"
    return (known or is_table) and not beside and path.name[0] != "." and path.is_file()


def content_suffix(path: PurePath) -> str:
    """The suffix that says how the content is written, once it is unpacked."""
    name = path.stem if path.suffix.lower() in PACKED else path.name
    return PurePath(name).suffix.lower()


def file_part(path: Path) -> Part:
    """One file.

    Raises:
        ConfigError: it is a table that cannot be opened.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() == ".parquet" or _kind_of(path) == PARQUET:
        with closing(_open_parquet(path)) as file:
            columns = tuple(file.schema_arrow.names)
        return Part(str(path), partial(_parquet_entries, path), columns)
    if delimiter := DELIMITERS.get(content_suffix(path)):
        return _csv_part(path, delimiter)
    return Part(str(path), partial(_json_file_entries, path))


def quick_count(path: Path) -> int | None:
    """About how many rows a file has, None where it would have to be unpacked or parsed to tell."""
    kind = _kind_of(path)
    if kind == PARQUET:
        with closing(_open_parquet(path)) as table:
            return int(table.metadata.num_rows)
    if kind in PACKED or not path.is_file():
        return None
    with path.open("rb") as file:
        if file.peek(1).lstrip().startswith(b"["):
            return None
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


# --- content --------------------------------------------------------------------------------------


def _kind_of(path: Path) -> str | None:
    """The kind of a file; of a pipe none, as it can be read only once."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return _kind(file)


def _kind(file: io.BufferedReader) -> str | None:
    head = file.peek(32)
    return next((kind for kind, sign in SIGNS.items() if head.startswith(sign)), None)


def _unpacked(file: io.BufferedReader, suffix: str = "") -> io.BufferedReader:
    """The content of an open file, unpacked if its first bytes say that it is packed.

    Args:
        file: The open file.
        suffix: With which its name ends, in lower case.

    Raises:
        ConfigError: the package that unpacks it is missing.
        OSError: it holds no rows of text.
    """
    kind = _kind(file)
    if kind is None:
        if suffix in PACKED and not file.peek(1):
            raise EOFError("the file is empty")
        return file
    if kind not in PACKED:
        raise OSError(f"by its first bytes it is {kind}")
    return io.BufferedReader(UNPACKERS[kind](file))


def _zstd_stream(file: BinaryIO) -> Any:
    # Others end without an error at the end of a file's first frame, or where it is cut off.
    try:
        import pyarrow
    except ImportError:
        raise ConfigError(f"zstd files need: {INSTALL}") from None
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")


UNPACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".zst": _zstd_stream,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


@contextmanager
def _open_content(path: Path) -> Iterator[io.BufferedReader]:
    """The unpacked content of a file; what goes wrong with it is a ConfigError."""
    try:
        with path.open("rb") as file:
            yield _unpacked(file, path.suffix.lower())
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise unreadable(path, error) from None


# --- JSON -----------------------------------------------------------------------------------------


def stdin_entries(file: io.BufferedReader) -> Iterator[Entry]:
    """The rows on standard input.

    Raises:
        ConfigError: it is unparseable as a whole.
    """
    try:
        yield from _json_entries("standard input", _unpacked(file))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise unreadable("-", error) from None


def _json_file_entries(path: Path) -> Iterator[Entry]:
    with _open_content(path) as file:
        yield from _json_entries(str(path), file)


def _json_entries(name: str, file: io.BufferedReader) -> Iterator[Entry]:
    if file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return _JsonArray(name, file).entries()
    return _json_lines(name, file)


def _json_lines(name: str, file: io.BufferedReader) -> Iterator[Entry]:
    for number, line in enumerate(file, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not text.strip():
            continue
        where = f"{name}, line {number}"
        try:
            yield _row(where, json.loads(text.rstrip().decode()))
        except (ValueError, RecursionError) as error:
            # A full disk or a killed run leaves the last line without its end.
            whole = line.endswith(b"\n") or isinstance(error, RecursionError)
            cut = "" if whole else "the last line is cut off, "
            yield fault(where, f"{cut}not JSON: {_reason(error)}")


def _row(where: str, value: Any) -> Entry:
    if isinstance(value, dict):
        return Row(where, value)
    return fault(where, f"a row is a JSON object, not {type(value).__name__}")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} of the line is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {error.pos + 1})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


class _JsonArray:
    """A JSON array that is read piece by piece, as much as its next item needs."""

    def __init__(self, name: str, file: io.BufferedReader) -> None:
        self._name = name
        self._file = io.TextIOWrapper(file, "utf-8-sig")
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._items = 0

    def entries(self) -> Iterator[Entry]:
        """The items, named by their place, from 0.

        Raises:
            ConfigError: the array is broken; what follows cannot be told apart.
        """
        self._take("[")
        if self._next() != "]":
            yield self._item()
            while self._next() == ",":
                self._take(",")
                yield self._item()
        self._take("]", expected="',' or ']'")
        if self._next():
            raise unreadable(self._name, "there is more text behind the array")

    def _next(self) -> str:
        """The next character that is not blank, an empty text at the end."""
        while True:
            match = BLANKS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._read_on(1):
                return self._text[self._at : self._at + 1]

    def _take(self, sign: str, expected: str = "") -> None:
        if (found := self._next()) != sign:
            found = f", not {found!r}" if found else ""
            raise self._broken(f"Expecting {expected or repr(sign)}{found}")
        self._at += 1

    def _item(self) -> Entry:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - NEAR_THE_END
                cut_off = near or error.msg.startswith("Unterminated")
                if not cut_off or not self._read_on(len(self._text) - self._at):
                    raise self._broken(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._broken(_reason(error)) from None
            else:
                # A number at the end of what was read may have further digits.
                if end < len(self._text) or not self._read_on(1):
                    self._at = end
                    self._items += 1
                    return _row(f"{self._name}, item {self._items - 1}", value)

    def _read_on(self, characters: int) -> bool:
        """Reads at least so many, fewer only at the end; whether there were any."""
        try:
            more = self._file.read(max(CHUNK, characters))
        except UnicodeDecodeError:
            raise self._broken("it is not UTF-8") from None
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _broken(self, reason: str) -> ConfigError:
        item = f"item {self._items} or what follows it"
        return unreadable(self._name, f"{item} is not JSON: {reason}")


# --- CSV and TSV ----------------------------------------------------------------------------------


def _csv_part(path: Path, delimiter: str) -> Part:
    with _open_content(path) as file:
        columns = _csv_header(str(path), _csv_reader(file, delimiter))
    return Part(str(path), partial(_csv_entries, path, delimiter), columns)


def _csv_reader(file: io.BufferedReader, delimiter: str) -> Any:
    # The limit is one for all readers of the process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    # Bytes that are no UTF-8 become lone surrogates, which `_is_text` finds in their row.
    lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _csv_header(name: str, reader: Any) -> tuple[str, ...]:
    try:
        columns: tuple[str, ...] = tuple(next((cells for cells in reader if cells), ()))
    except csv.Error as error:
        raise fault(f"{name}, line 1", _not_csv(error)) from None
    where = f"{name}, line {reader.line_num}"
    if not columns:
        raise ConfigError(f"{name} is empty; its first line names the columns")
    if not _is_text(columns):
        raise fault(where, "the header is not UTF-8; save the file as UTF-8")
    for number, column in enumerate(columns, 1):
        if not column.strip():
            raise fault(where, f"the header gives column {number} no name")
        if column in columns[: number - 1]:
            raise fault(where, f"the header has the column {column!r} twice")
    return columns


def _csv_entries(path: Path, delimiter: str) -> Iterator[Entry]:
    with _open_content(path) as file:
        reader = _csv_reader(file, delimiter)
        columns = _csv_header(str(path), reader)
        while True:
            where = f"{path}, line {reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield fault(where, f"{_not_csv(error)} The record ends in line {reader.line_num}")
                continue
            if cells:
                yield _csv_entry(where, columns, cells)


def _csv_entry(where: str, columns: tuple[str, ...], cells: list[str]) -> Entry:
    if not _is_text(cells):
        return fault(where, "not UTF-8")
    if len(cells) != len(columns):
        count = f"{len(cells)} cell" + "s" * (len(cells) != 1)
        return fault(where, f"{count}, but the header has {len(columns)}; is a quote missing?")
    return Row(where, dict(zip(columns, cells, strict=True)))


def _not_csv(error: csv.Error) -> str:
    return f"not CSV: {error}; is a quote not closed, or one inside a quoted cell not doubled?"


def _is_text(cells: list[str] | tuple[str, ...]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


# --- Parquet --------------------------------------------------------------------------------------


def _open_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"Parquet files need: {INSTALL}") from None
    kind = _kind_of(path)
    if path.is_file() and kind != PARQUET:
        name = f"a {kind} file" if kind in PACKED else kind or "something else"
        raise unreadable(path, f"by its first bytes it is {name}, not Parquet")
    try:
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
                for index in range(len(batch)):
                    yield _parquet_entry(f"{path}, row {number + index}", batch.slice(index, 1))
                number += len(batch)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from None


def _parquet_entry(where: str, row: Any) -> Entry:
    try:
        return Row(where, row.to_pylist()[0])
    except (ValueError, OverflowError) as error:  # such as broken text
        return fault(where, f"it has a value that does not decode: {error}")
