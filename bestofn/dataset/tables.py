"""Records with typed columns, written as JSONL, CSV, Parquet or a folder of `datasets`."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from bestofn.errors import ConfigError
from bestofn.prompts import plain

if TYPE_CHECKING:
    import pyarrow

Format = Literal["jsonl", "parquet", "csv", "hf"]
Kind = Literal["bool", "int", "float", "text", "messages", "tool_messages", "json"]
"""What a column holds besides None; "json" is anything, written as JSON text."""
Columns = Mapping[str, Kind]
Record = dict[str, Any]

BATCH = 1000  # records in memory at once
ABOUT_TOOLS = ("tool_calls", "function_call", "tool_call_id", "name")
_KINDS: dict[type, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}


def kind_of(value: Any) -> Kind:
    """The kind of column that holds a value natively."""
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "json"
    return _KINDS.get(type(value), "json")


def common_kind(one: Kind | None, other: Kind) -> Kind:
    """The kind of column that holds values of both kinds; None is that of no value yet."""
    if one is None or one == other:
        return other
    return "float" if {one, other} == {"int", "float"} else "json"


def require(format: Format) -> None:
    """Checks that what a format needs is installed.

    Raises:
        ConfigError: it is not; the message says what to install.
    """
    needed = {"parquet": "pyarrow", "hf": "datasets"}.get(format)
    if needed and find_spec(needed) is None:
        raise ConfigError(f"the format {format!r} needs: pip install 'bestofn[datasets]'")


def write(path: Path, format: Format, columns: Columns, records: Iterable[Record]) -> int:
    """Writes records to a new file, or for "hf" to a new folder, and says how many there were.

    A column that a record lacks is null. JSONL holds all values as they are; the other formats
    hold those of a "json" column as JSON text, and CSV lists of messages too. Of messages with
    calls of tools, tables hold the calls as JSON text.

    Raises:
        OSError: it cannot be written.
    """
    count = 0

    def rows() -> Iterator[Record]:
        nonlocal count
        for record in records:
            yield {name: plain(record.get(name)) for name in columns}
            count += 1

    _WRITERS[format](path, columns, rows())
    return count


def _write_jsonl(path: Path, _columns: Columns, records: Iterator[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_as_json(record) + "\n" for record in records)


def _write_csv(path: Path, columns: Columns, records: Iterator[Record]) -> None:
    kinds: Columns = {
        name: "json" if kind in ("messages", "tool_messages") else kind
        for name, kind in columns.items()
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        # The writer quotes text with a line break only if its own lines end with such a one.
        writer = csv.DictWriter(file, list(columns), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(_cells(record, kinds) for record in records)


def _write_parquet(path: Path, columns: Columns, records: Iterator[Record]) -> None:
    from pyarrow import parquet

    schema = _arrow_schema(columns)
    with parquet.ParquetWriter(path, schema) as writer:
        _write_batches(writer, schema, columns, records)


def _write_hf(path: Path, columns: Columns, records: Iterator[Record]) -> None:
    import datasets
    import pyarrow

    schema = _arrow_schema(columns)
    datasets.disable_progress_bars()
    with TemporaryDirectory(dir=path.parent) as folder:
        rows = str(Path(folder) / "rows.arrow")
        with pyarrow.ipc.new_stream(rows, schema) as writer:
            _write_batches(writer, schema, columns, records)
        dataset = datasets.Dataset.from_file(rows)
        # Left to itself it writes a dataset without rows as no file, which cannot be loaded.
        dataset.save_to_disk(path, num_shards=None if len(dataset) else 1)


_WRITERS = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "hf": _write_hf,
}


def _write_batches(
    writer: Any, schema: "pyarrow.Schema", columns: Columns, records: Iterator[Record]
) -> None:
    from pyarrow import RecordBatch

    while batch := [_cells(record, columns) for record in islice(records, BATCH)]:
        writer.write_batch(RecordBatch.from_pylist(batch, schema=schema))


def _arrow_schema(columns: Columns) -> "pyarrow.Schema":
    import pyarrow as pa

    message = [(name, pa.string()) for name in ("role", "content")]
    about_tools = [(name, pa.string()) for name in ABOUT_TOOLS]
    types = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "text": pa.string(),
        "messages": pa.list_(pa.struct(message)),
        "tool_messages": pa.list_(pa.struct(message + about_tools)),
        "json": pa.string(),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def _cells(record: Record, columns: Columns) -> Record:
    return {name: _cell(record[name], kind) for name, kind in columns.items()}


def _cell(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind == "json":
        return _as_json(value)
    if kind == "tool_messages":
        return [
            {name: part if isinstance(part, str) else _as_json(part) for name, part in turn.items()}
            for turn in value
        ]
    return float(value) if kind == "float" else value


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
