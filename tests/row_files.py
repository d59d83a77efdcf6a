"""The same rows in every kind of file, and what is read of them."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from bestofn.dataset.sources import Row, read_rows
from bestofn.errors import ConfigError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda content: zstandard.ZstdCompressor(write_checksum=True).compress(content),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
KINDS = [
    *(kind + pack for kind in ("jsonl", "json", "csv", "tsv") for pack in ("", *PACKERS)),
    "ndjson",
    "parquet",
    "CSV.GZ",
    "txt",
]
ROWS = [
    {"prompt": "What is 1 and 1?", "answer": "2"},
    {"prompt": 'Say "hi",\ttwice.', "answer": "“hi” \\ 'hi'"},
    {"prompt": "One line,\nanother.\r\nAnd a third.", "answer": ""},
    {"prompt": "数えて: 😀\u2028\x85", "answer": " padded "},
]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A file of the kind that its name says, JSONL if it says none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1] == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif suffixes[0] in (".csv", ".tsv"):
        path.write_bytes(packed(path, csv_bytes(rows, "\t" if suffixes[0] == ".tsv" else ",")))
    else:
        path.write_bytes(packed(path, json_bytes(rows)))
    return path


def json_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_bytes(rows: Sequence[dict[str, Any]], delimiter: str = ",", **options: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def packed(path: Path, content: bytes) -> bytes:
    """The bytes of a file with this content."""
    pack = PACKERS.get(path.suffix.lower())
    return pack(content) if pack else content


def values(source: Any, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_rows(source, **options)]


def read_on(source: Any) -> tuple[list[Row], list[str]]:
    """The rows, and what is wrong with the others."""
    faults: list[ConfigError] = []
    return list(read_rows(source, faults.append)), [str(fault) for fault in faults]
