"""Rows of selections as a table: of responses, of candidates, or for training."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from bestofn.dataset.exported import Columns, Keep, Kind, Record, Records
from bestofn.dataset.sources.files import library
from bestofn.errors import BestOfNError, ConfigError
from bestofn.store import pool
from bestofn.store.journal import refuse_stream

Format = Literal["jsonl", "parquet", "csv", "hf"]
SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}
NEEDED = {"parquet": "pyarrow", "hf": "datasets"}
BATCH = 1000  # records in memory at once
ABOUT_TOOLS = ("tool_calls", "function_call", "tool_call_id", "name")


@dataclass(frozen=True, slots=True)
class Exported:
    """How many records an export wrote, and how many rows gave none, by a reason of `LEFT_OUT`."""

    records: int
    left_out: dict[str, int]


def export(
    source: str | Path,
    target: str | Path,
    *,
    keep: Keep = "best",
    format: Format | None = None,
    reward: str | None = None,
    min_margin: float = 0.0,
    overwrite: bool = False,
) -> Exported:
    """Writes rows of selections, or of scored pools, in a format that other tools read.

    The target is there whole or not at all. All records have the same columns; "best" and "all"
    keep the rows' own, and one whose name is taken gets the prefix "column_". Outside of JSONL
    lists, objects and values of several types are JSON text, as are calls of tools. Prompts are
    text if all of them are one user message, else chat messages. The file may be one that a run is
    writing: a last line that is cut off is left out.

    Args:
        source: The JSONL file of rows.
        target: The file to write, or for "hf" the folder.
        keep: "best" is a record for each row, its response null where there is an error; "all" one
            for each candidate, with a column for all that its scores say, such as "score_NAME";
            "preference" a pair of the best and the worst response of each row whose scores differ,
            and "sft" a conversation that ends with the best response, as TRL trains on; "pool" the
            rows as they are, with the scores that are kept beside them, as JSONL.
        format: "jsonl", "parquet", "csv" or "hf", a folder for `datasets.load_from_disk`; by
            default what the target's suffix says.
        reward: Chooses the response; by default the one that chose it, or the row's only one.
        min_margin: By how much the scores of a pair must differ.
        overwrite: Replace a target that exists.

    Raises:
        ConfigError: an argument makes no sense, the target exists, a row is wrong, or what the
            format needs is not installed.
        BestOfNError: the target cannot be written.
    """
    source, target = Path(source), Path(target)
    refuse_stream(target)
    kind = format or _format_of(target)
    _check_options(keep, kind, min_margin)
    _check_paths(source, target, kind, overwrite)
    require(kind)
    how, cut_off = Records(keep, reward, min_margin), list[ConfigError]()
    # This also finds a bad row before anything is written.
    how.survey(pool.stream(source, cut_off.append))
    if not how.rows:
        raise ConfigError(f"{source} holds no rows")
    # A run may have written further rows since.
    rows = islice(pool.stream(source, lambda _: None), how.rows)
    try:
        with _whole(target) as place:
            if keep == "pool":
                with place.open("w", encoding="utf-8") as file:
                    file.writelines(pool.dumps(row) + "\n" for row in rows)
            else:
                _WRITERS[kind](place, how.columns(), how.records(rows))
    except OSError as error:
        raise BestOfNError(f"cannot write {target}: {error.strerror or error}") from error
    return Exported(how.count, dict(how.left_out + Counter(cut_off=len(cut_off))))


def _format_of(target: Path) -> Format:
    if target.suffix in SUFFIXES:
        return SUFFIXES[target.suffix]
    raise ConfigError(
        f"the name {target.name!r} does not say a format; end it in {', '.join(SUFFIXES)}, or give "
        "the format (--format), which may also be hf"
    )


def require(format: Format) -> None:
    """Raises a ConfigError where what a format needs is not installed."""
    if format in NEEDED and find_spec(NEEDED[format]) is None:
        raise ConfigError(f"the format {format!r} needs: pip install 'bestofn[datasets]'")


def _check_options(keep: Keep, format: Format, min_margin: float) -> None:
    for name, value, known in (("keep", keep, Keep), ("format", format, Format)):
        if value not in get_args(known):
            raise ConfigError(f"{name} is one of {', '.join(get_args(known))}, not {value!r}")
    if not 0 <= min_margin < inf or (min_margin and keep != "preference"):
        raise ConfigError(
            f"min_margin is a number from 0, for pairs (keep 'preference'), not {min_margin} for "
            f"keep {keep!r}"
        )
    if keep == "pool" and format != "jsonl":
        raise ConfigError(f"rows of a pool (keep 'pool') are written as jsonl, not as {format}")


def _check_paths(source: Path, target: Path, format: Format, overwrite: bool) -> None:
    if not source.is_file():
        raise ConfigError(f"{source} is no file; give one that `bestofn select` wrote")
    place, read = target.resolve(), source.resolve()
    if place == read or place in read.parents:
        raise ConfigError(f"{target} is what the rows are read from; write to another place")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise ConfigError(f"{target} exists; write to another place, or replace it (--overwrite)")
    if not (target / "dataset_info.json" if format == "hf" else target).is_file():
        kind = "folder of a dataset" if format == "hf" else "regular file"
        raise ConfigError(f"{target} is no {kind}, so it is not replaced; write to another place")


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A place to write to, whose content becomes the target if all goes well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".bestofn-export-") as folder:
        made = Path(folder) / "made"
        yield made
        for path in made.rglob("*") if made.is_dir() else [made]:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if target.is_dir():  # a folder cannot be replaced in one step
            target.rename(Path(folder) / "replaced")
        made.replace(target)


# --- formats --------------------------------------------------------------------------------------


def _write_jsonl(path: Path, _: Columns, records: Iterator[Record]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_as_json(record) + "\n" for record in records)


def _write_csv(path: Path, columns: Columns, records: Iterator[Record]) -> None:
    kinds: Columns = {n: "json" if "messages" in kind else kind for n, kind in columns.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        # The writer quotes text with a line break only if its own lines end with such a one.
        writer = csv.DictWriter(file, list(columns), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(_cells(record, kinds) for record in records)


def _write_parquet(
    path: Path, columns: Columns, records: Iterator[Record], stream: bool = False
) -> None:
    """Writes a Parquet file, or Arrow's stream."""
    arrow, text = library("pyarrow"), library("pyarrow").string()
    turn = [("role", text), ("content", text)]
    types = {
        "bool": arrow.bool_(),
        "int": arrow.int64(),
        "float": arrow.float64(),
        "messages": arrow.list_(arrow.struct(turn)),
        "tool_messages": arrow.list_(arrow.struct([*turn, *((n, text) for n in ABOUT_TOOLS)])),
    }
    schema = arrow.schema([(name, types.get(kind, text)) for name, kind in columns.items()])
    opening = arrow.ipc.new_stream if stream else library("pyarrow.parquet").ParquetWriter
    with opening(str(path), schema) as writer:
        while batch := [_cells(record, columns) for record in islice(records, BATCH)]:
            writer.write_batch(arrow.RecordBatch.from_pylist(batch, schema=schema))


def _write_hf(path: Path, columns: Columns, records: Iterator[Record]) -> None:
    datasets = library("datasets")
    datasets.disable_progress_bars()
    with TemporaryDirectory(dir=path.parent) as folder:
        rows = Path(folder) / "rows.arrow"
        _write_parquet(rows, columns, records, stream=True)
        dataset = datasets.Dataset.from_file(str(rows))
        # Left to itself it writes a dataset without rows as no file, which cannot be loaded.
        dataset.save_to_disk(path, num_shards=None if len(dataset) else 1)


_WRITERS = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet, "hf": _write_hf}


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
