"""Rows of selections as a table: of responses, of candidates, or for training."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from bestofn.dataset.records import Keep, Plan, Reason, Survey, plan, records
from bestofn.dataset.tables import Format, require, write
from bestofn.errors import BestOfNError, ConfigError
from bestofn.store import pool
from bestofn.store.journal import refuse_stream
from bestofn.types import Pool

SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}
DATASET_INFO = "dataset_info.json"  # stands in each folder that `datasets` wrote


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        records: How many.
        left_out: How many rows gave none, by the reason; `LEFT_OUT` has the reasons in words.
    """

    records: int
    left_out: dict[Reason, int]


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

    The target is there whole or not at all. All records have the same columns. "best" and "all"
    keep the rows' own columns; one whose name is taken gets the prefix "column_". Outside of JSONL
    an own column whose values are not all of one type, or are lists or objects, holds JSON text.
    In CSV null is an empty field, and a list of messages is JSON text.
    Prompts are text if all of them are one user message, else all are chat messages. The file may
    be one that a run is writing: a last line that is cut off is left out.

    Args:
        source: The JSONL file of rows.
        target: The file to write, or for "hf" the folder.
        keep: "best" is a record for each row, its response null where there is an error; "all" one
            for each candidate, with a column "score_NAME" for each reward, and "reason_NAME",
            "inferred_NAME", "flags_NAME" and "counts_NAME" where its scores have them;
            "preference" a pair of the best and the worst response for each row whose scores
            differ, as TRL trains on;
            "sft" a conversation that ends with the best response, as TRL trains on;
            "pool" the rows as they are, with the scores that are kept beside them, as JSONL.
        format: "jsonl", "parquet", "csv" or "hf", a folder for `datasets.load_from_disk`; by
            default what the target's suffix says.
        reward: Chooses the response; by default the one that chose it in the row, or the only one
            there is.
        min_margin: By how much the scores of a pair must differ.
        overwrite: Replace a target that exists.

    Raises:
        ConfigError: an argument makes no sense, the target exists, a row is wrong, or what the
            format needs is not installed.
        BestOfNError: the target cannot be written, or the source was replaced meanwhile.
    """
    source, target = Path(source), Path(target)
    refuse_stream(target)
    written_as = _format_of(target) if format is None else format
    _check_options(keep, written_as, min_margin)
    _check_paths(source, target, written_as, overwrite)
    require(written_as)
    left_out = Counter[Reason]()
    begun, found = source.stat().st_ino, _survey(source, left_out)
    how = None if keep == "pool" else plan(found, keep, reward, min_margin)
    try:
        with _whole(target) as place:
            # A run may have written further rows since.
            rows = islice(pool.stream(source, lambda _: None), found.rows)
            count = _written(place, written_as, rows, how, left_out)
            if source.stat().st_ino != begun:
                raise BestOfNError(f"{source} was replaced while it was read; export it again")
    except OSError as error:
        raise BestOfNError(f"cannot write {target}: {error.strerror or error}") from error
    return Exported(count, dict(left_out))


def _written(
    path: Path, format: Format, rows: Iterator[Pool], how: Plan | None, left_out: Counter[Reason]
) -> int:
    """Writes the records of the rows, or without a plan the rows as they are; how many."""
    if how is not None:
        return write(path, format, how.columns, records(rows, how, left_out))
    with path.open("w", encoding="utf-8") as file:
        return sum(1 for row in rows if file.write(pool.dumps(row) + "\n"))


def _format_of(target: Path) -> Format:
    if target.suffix in SUFFIXES:
        return SUFFIXES[target.suffix]
    raise ConfigError(
        f"the name {target.name!r} does not say a format; end it in .jsonl, .parquet or .csv, or "
        "give the format (--format), which may also be hf"
    )


def _check_options(keep: Keep, format: Format, min_margin: float) -> None:
    for name, value, known in (("keep", keep, Keep), ("format", format, Format)):
        if value not in get_args(known):
            raise ConfigError(f"{name} is one of {', '.join(get_args(known))}, not {value!r}")
    if not 0 <= min_margin < inf:
        raise ConfigError(f"min_margin is a finite number that is not negative, not {min_margin}")
    if keep == "pool" and format != "jsonl":
        raise ConfigError(f"rows of a pool (keep 'pool') are written as jsonl, not as {format}")
    if min_margin and keep != "preference":
        raise ConfigError(f"min_margin is for pairs (keep 'preference'), not for keep {keep!r}")


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
    if format != "hf" and target.is_dir():
        raise ConfigError(f"{target} is a folder; write to a file")
    if format != "hf" and not target.is_file():
        raise ConfigError(f"{target} is no regular file, so it is not replaced; write to one")
    if format == "hf" and not (target / DATASET_INFO).is_file():
        raise ConfigError(f"{target} is no folder of a dataset, so it is not replaced; remove it")


def _survey(source: Path, left_out: Counter[Reason]) -> Survey:
    """What all rows have in common; this also finds a bad one before anything is written."""
    found, cut_off = Survey(), list[ConfigError]()
    for row in pool.stream(source, cut_off.append):
        found.add(row)
    if not found.rows:
        raise ConfigError(f"{source} holds no rows")
    if cut_off:
        left_out["cut_off"] = len(cut_off)
    return found


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A place to write to, whose content becomes the target if all goes well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".bestofn-export-") as folder:
        made = Path(folder) / "made"
        yield made
        _sync(made)
        _put(made, target, Path(folder) / "replaced")


def _sync(made: Path) -> None:
    """Forces a file, or those in a folder, to disk."""
    for path in made.rglob("*") if made.is_dir() else [made]:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _put(made: Path, target: Path, aside: Path) -> None:
    if not target.is_dir():
        made.replace(target)
        return
    target.rename(aside)  # a folder cannot be replaced in one step
    try:
        made.rename(target)
    except BaseException:
        aside.rename(target)
        raise
