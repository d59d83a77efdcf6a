"""Files and folders: each file is read as its name says, JSONL where it says nothing."""

import codecs
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bestofn.errors import ConfigError
from bestofn.sources.base import FORMS, Entry, Part, Row, fault, unreadable
from bestofn.sources.packed import PACKED, READ_ERRORS, content_suffix, open_unpacked
from bestofn.sources.tables import csv_part, parquet_count, parquet_part

DELIMITERS = {".csv": ",", ".tsv": "\t"}
ARRAY = "; if the file is one array, write its items one per line, without the brackets"
KNOWN = (".jsonl", ".json", ".ndjson", *DELIMITERS)


def file_parts(path: Path) -> list[Part]:
    """A file, or the files of a folder in the order of their names.

    Raises:
        ConfigError: there is none, or one cannot be read.
    """
    try:
        if not path.exists():
            raise ConfigError(f"there is no file {path}; prompts are {FORMS}")
        files = files_of(path)
    except OSError as error:
        raise unreadable(path, error) from None
    if not files:
        raise unreadable(path, "the folder holds no JSONL, CSV, TSV or Parquet file")
    return [_file_part(file) for file in files]


def files_of(path: Path) -> list[Path]:
    """The file itself, or those of a folder that hold rows, in the order of their names."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if _is_shard(file))


def quick_count(path: Path) -> int | None:
    """About how many rows a file has, None where it would have to be unpacked to tell."""
    if path.suffix.lower() == ".parquet":
        return parquet_count(path)
    if path.suffix.lower() in PACKED:
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _is_shard(path: Path) -> bool:
    known = path.suffix.lower() == ".parquet" or content_suffix(path) in KNOWN
    return known and not path.name.startswith(".") and path.is_file()


def _file_part(path: Path) -> Part:
    if path.suffix.lower() == ".parquet":
        return parquet_part(path)
    if delimiter := DELIMITERS.get(content_suffix(path)):
        return csv_part(path, delimiter)
    return Part(str(path), partial(_jsonl_entries, path))


def _jsonl_entries(path: Path) -> Iterator[Entry]:
    try:
        with open_unpacked(path) as file:
            yield from json_rows(str(path), file)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def json_rows(name: str, lines: Iterable[bytes]) -> Iterator[Entry]:
    """The rows in lines of JSON; blank lines are none."""
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            where = f"{name}, line {number}"
            try:
                yield Row(where, _json_object(text))
            except ConfigError as error:
                hint = ARRAY if number == 1 and text.lstrip().startswith(b"[") else ""
                yield fault(where, f"{error}{hint}")


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.rstrip().decode())
    except (ValueError, RecursionError) as error:
        sentence = f"not JSON: {_reason(error)}"
        # A full disk or a killed run leaves the last line without its end.
        whole = line.endswith(b"\n") or isinstance(error, RecursionError)
        raise ConfigError(sentence if whole else f"the last line is cut off, {sentence}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"a row is a JSON object, not {type(row).__name__}")
    return row


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} of the line is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {error.pos + 1})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
