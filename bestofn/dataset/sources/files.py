"""Rows of files: JSON, CSV, TSV and Parquet, packed or not, known by their first bytes."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bestofn.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PACKED = (".gz", ".zst", ".bz2", ".xz")
NO_ROWS = (
    *("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"),
    *(".manifest.json", ".scores.json"),
)
"""How files end that hold no rows: those of `datasets`, and those of version 0.1 beside rows."""
PARQUET = b"PAR1"
REFUSED: dict[bytes | tuple[bytes, ...], str] = {
    (b"ARROW1", b"\xff\xff\xff\xff"): "an Arrow file; give the folder that save_to_disk wrote",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull`",
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE): "UTF-16 text; save it as UTF-8",
}
"""First bytes of formats that are not supported, and their names."""

LONGEST = 400  # characters of a fault, without its place; a row can be a megabyte
LONGEST_CELL = 1 << 24  # characters; where a quote is not closed, the cell ends here
CHUNK = 1 << 16  # characters of an array that are read at once
BATCH = 256  # rows of a Parquet file that are held at once
BUFFER = 1 << 17  # bytes of each of its columns


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

    def read_as(self, kind: type[M]) -> M:
        """The row as a model.

        Raises:
            ConfigError: it is of another form; the message names place and field.
        """
        try:
            return kind.model_validate(self.values)
        except ValidationError as error:
            first = error.errors()[0]
        field, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            needed = [name for name, own in kind.model_fields.items() if own.is_required()]
            said = f"the field {field!r} is missing"
            said += f"; a row has {', '.join(needed)}" if len(needed) > 1 else ""
        elif field:
            said = f"the field {field!r}: {said}"
        raise ConfigError(f"{self.where}: {said}")


Entry = Row | ConfigError
"""A row, or what is wrong with it, its place named."""


def fault(where: str, sentence: object) -> ConfigError:
    """What is wrong with a row or a whole source, in one line."""
    return ConfigError(f"{where}: {' '.join(str(sentence)[:LONGEST].split())}")


@contextmanager
def reading(name: object) -> Iterator[None]:
    """Names the source in whatever the libraries that read it raise."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise fault(f"{name} cannot be read", error) from error


def library(name: str) -> Any:
    """A package of the extra `datasets`, or a ConfigError that says what to install."""
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"this needs {name}: pip install 'bestofn[datasets]'") from None


def files_of(path: Path) -> list[Path]:
    """The file itself, or those of a folder and its `data` that hold rows, in order."""
    if not path.is_dir():
        return [path]
    folders = [folder for folder in (path, path / "data") if folder.is_dir()]
    return sorted(file for folder in folders for file in folder.iterdir() if _holds_rows(file))


def _holds_rows(path: Path) -> bool:
    known = content_suffix(path) in (".jsonl", ".json", ".ndjson", ".parquet", *DELIMITERS)
    beside = path.name.startswith(".") or path.name.endswith(NO_ROWS)
    return known and not beside and path.is_file()


def content_suffix(name: object) -> str:
    """The suffix that says how the content of a file is written, once it is unpacked."""
    path = PurePath(str(name).lower())
    return PurePath(path.stem).suffix if path.suffix in PACKED else path.suffix


def quick_count(path: Path) -> int | None:
    """About how many rows a file has, None where it would have to be unpacked or parsed to tell."""
    if not path.is_file():  # a pipe can be read only once
        return None
    with reading(path), path.open("rb") as file:
        head = file.peek(32)
        if head.startswith(PARQUET):
            return int(library("pyarrow.parquet").read_metadata(path).num_rows)
        if head.startswith((*UNPACKERS, b"[")):
            return None
        return sum(1 for _ in file)


def file_rows(path: Path) -> Iterator[Entry]:
    """The rows of a file, whose kind its first bytes say."""
    with reading(path), path.open("rb") as file:
        if file.peek(4).startswith(PARQUET):
            yield from _parquet_rows(path)
        elif delimiter := DELIMITERS.get(content_suffix(path)):
            yield from _csv_rows(str(path), unpacked(file), delimiter)
        else:
            yield from json_rows(str(path), unpacked(file))


def unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """The content of an open file, unpacked if its first bytes say that it is packed."""
    head = file.peek(32)
    for sign, kind in REFUSED.items():
        if head.startswith(sign):
            raise OSError(f"by its first bytes it is {kind}")
    for sign, unpack in UNPACKERS.items():
        if head.startswith(sign):
            return io.BufferedReader(unpack(file))
    return file


def _zstd_stream(file: Any) -> Any:
    # Others end without an error at the end of a file's first frame, or where it is cut off.
    pyarrow = library("pyarrow")
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")


UNPACKERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\x28\xb5\x2f\xfd": _zstd_stream,
    b"\x50\x2a\x4d\x18": _zstd_stream,  # pzstd begins with a skippable frame
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""What unpacks a file that begins so."""


def _parquet_rows(path: Path) -> Iterator[Entry]:
    # With pre_buffer, the default, all of the file that was read is kept to its end.
    open_table = library("pyarrow.parquet").ParquetFile
    with open_table(path, buffer_size=BUFFER, pre_buffer=False) as table:
        batches = (batch.to_pylist() for batch in table.iter_batches(BATCH))
        for number, values in enumerate(chain.from_iterable(batches)):
            yield Row(f"{path}, row {number}", values)


def _csv_rows(name: str, file: io.BufferedReader, delimiter: str) -> Iterator[Entry]:
    # The limit is one for all readers of the process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    # Bytes that are no UTF-8 become lone surrogates, which `encode` finds in their row.
    lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
            "".join(cells).encode()
        except StopIteration:
            return
        except (csv.Error, UnicodeEncodeError) as error:
            ends = f"is a quote not closed or doubled? The record ends in line {reader.line_num}"
            no_text = isinstance(error, UnicodeEncodeError)
            wrong = fault(where, "not UTF-8" if no_text else f"not CSV: {error}; {ends}")
            if not columns:
                raise wrong from None
            yield wrong
        else:
            if not columns:
                columns = cells
                if len({*columns}) < len(columns):
                    raise fault(where, "the header has a column twice")
            elif len(cells) == len(columns):
                yield Row(where, dict(zip(columns, cells, strict=True)))
            elif cells:
                counts = f"the header has {len(columns)} cells, this row {len(cells)}"
                yield fault(where, f"{counts}; is a quote missing?")


def json_rows(name: str, file: io.BufferedReader) -> Iterator[Entry]:
    if file.peek(1).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from _array_rows(name, io.TextIOWrapper(file, "utf-8-sig"))
        return
    for number, line in enumerate(file, 1):
        if not line.removeprefix(codecs.BOM_UTF8).strip():
            continue
        where = f"{name}, line {number}"
        try:
            yield _json_row(where, json.loads(line.rstrip()))
        except (ValueError, RecursionError) as error:
            yield fault(where, "not JSON: " + str(error).replace("line 1 ", ""))


def _array_rows(name: str, file: io.TextIOWrapper) -> Iterator[Entry]:
    """The items of an array, read piece by piece; a broken one ends the array."""
    decode = json.JSONDecoder().raw_decode
    text, at, number, more = "", 0, 0, True
    while more:
        sign = re.compile(r"\s*,\s*" if number else r"\s*\[\s*").match(text, at)
        try:
            value, end = decode(text, sign.end() if sign else len(text))
            # A number at the end of what was read may have further digits.
            whole, reason = end < len(text), "the end is missing"
        except (ValueError, RecursionError) as error:
            whole, reason = False, getattr(error, "msg", str(error))
        if whole:
            yield _json_row(f"{name}, item {number}", value)
            at, number = end, number + 1
        else:
            piece = file.read(max(CHUNK, len(text) - at))
            text, at, more = text[at:] + piece, 0, bool(piece)
    if not re.fullmatch(r"\s*\]\s*" if number else r"\s*\[\s*\]\s*", text):
        raise fault(f"{name}, item {number}", f"not JSON: {reason}")


def _json_row(where: str, value: Any) -> Entry:
    if isinstance(value, dict):
        return Row(where, value)
    return fault(where, f"a row is a JSON object, not {type(value).__name__}")
