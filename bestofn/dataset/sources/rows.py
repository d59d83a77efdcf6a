"""The rows of anything that rows can come from, one at a time."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from bestofn.dataset.sources.files import (
    DELIMITERS,
    Entry,
    Row,
    content_suffix,
    fault,
    file_rows,
    files_of,
    json_rows,
    library,
    quick_count,
    reading,
    unpacked,
)
from bestofn.errors import ConfigError
from bestofn.prompts import PromptLike
from bestofn.types import Prompt

FORMS = (
    "a JSONL file or a JSON array, a CSV or TSV file (each also .gz, .zst, .bz2 or .xz), a Parquet "
    "file, a folder of these or of save_to_disk, '-' for JSON on standard input, "
    "'hf:NAME[:CONFIG][:SPLIT]', 'hf://' and a file on the hub, or 'tiny:COUNT'"
)
SAVED = ("state.json", "dataset_info.json"), ("dataset_dict.json",)
"""What `save_to_disk` writes beside a dataset, and beside one of several splits."""
T = TypeVar("T")
Source = str | PathLike[str] | Iterable[Row | Mapping[str, Any] | PromptLike]


def read_rows(
    source: Source,
    bad_row: Callable[[ConfigError], None] | None = None,
    *,
    streaming: bool = False,
) -> Iterator[Row]:
    """The rows of a source, read as they are taken.

    Args:
        source: A file, a folder or a dataset as `FORMS` lists them. Of a folder, or the clone of a
            dataset of the hub, all files are read in the order of their names, also those in its
            sub-folder `data`. In Python also rows, mappings or prompts in any iterable, such as a
            list or a `datasets.Dataset`.
        bad_row: Called with each row that cannot be used, which is then left out; by default the
            first one is an error.
        streaming: Whether a dataset of the hub is read from there while its rows are taken,
            instead of being downloaded first.

    Raises:
        ConfigError: there is no such source (at once), it cannot be read, or a row is wrong; the
            message names its place.
    """
    return without_faults(open_source(source, streaming=streaming), bad_row)


def without_faults(
    entries: Iterable[T | ConfigError], bad_row: Callable[[ConfigError], None] | None
) -> Iterator[T]:
    """The entries but for faults, which go to `bad_row` or, without one, are raised."""
    for entry in entries:
        if not isinstance(entry, ConfigError):
            yield entry
        elif bad_row is None:
            raise entry
        else:
            bad_row(entry)


def open_source(source: Source, *, streaming: bool) -> Iterator[Entry]:
    """The rows and faults of a source; a ConfigError where it does not exist."""
    if not isinstance(source, str | PathLike):
        return _python_rows(source)
    kind, colon, rest = source.partition(":") if isinstance(source, str) else ("", "", "")
    if source == "-":
        return _stdin_rows()
    if kind == "hf" and rest:
        return _dataset_rows(source, _on_hub(str(source), streaming))
    if kind == "tiny" and colon:
        return _tiny_rows(str(source), rest)
    return _path_rows(Path(source))


def count_rows(source: Source) -> int | None:
    """About how many rows a source has, None where it would have to be read to tell."""
    if not isinstance(source, str | PathLike):
        return len(source) if isinstance(source, Sized) else None
    kind, _, count = str(source).partition(":")
    if kind == "tiny" and count.isdecimal():
        return int(count)
    with reading(source):
        counts = [quick_count(file) for file in files_of(Path(source))]
    return None if None in counts or not counts else sum(filter(None, counts))


def _python_rows(source: Iterable[Any]) -> Iterator[Entry]:
    # Iterating over mappings and data frames gives names, which would pass for prompts.
    names = isinstance(source, Mapping) or hasattr(source, "iterrows")
    if names or not isinstance(source, Iterable):
        raise ConfigError(
            f"prompts are {FORMS}, or an iterable of rows (of a data frame: .to_dict('records')), "
            f"not {type(source).__name__}"
        )
    for number, item in enumerate(source):
        where = f"row {number}"
        if isinstance(item, Row):
            yield item
        elif isinstance(item, Mapping):
            yield Row(where, item)
        elif isinstance(item, Prompt):
            yield Row(where, {**item.columns, "prompt": item})
        elif isinstance(item, Sequence):
            yield Row(where, {"prompt": item})
        else:
            yield fault(where, f"a row is a mapping or a prompt, not {type(item).__name__}")


def _stdin_rows() -> Iterator[Entry]:
    name, file = "standard input", cast("io.RawIOBase", sys.stdin.buffer)
    with reading(name):
        yield from json_rows(name, unpacked(io.BufferedReader(file)))


def _tiny_rows(source: str, count: str) -> Iterator[Entry]:
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"instructions of the tiny world are 'tiny:COUNT', not {source!r}")
    from bestofn.tiny import heldout_tasks

    tasks = heldout_tasks(int(count))
    return _dataset_rows(source, ({"prompt": t.instruction, "family": t.family} for t in tasks))


def _path_rows(path: Path) -> Iterator[Entry]:
    """A file, or the files of a folder in the order of their names, or a saved dataset."""
    with reading(path):
        if not path.exists():
            raise ConfigError(f"there is no file {path}; prompts are {FORMS}")
        if any(all((path / name).is_file() for name in names) for names in SAVED):
            return _dataset_rows(path, _saved(path))
        found = files_of(path)
    if not found:
        raise fault(f"{path} cannot be read", "the folder holds no JSONL, CSV, TSV or Parquet file")
    return chain.from_iterable(map(file_rows, found))


def _saved(folder: Path) -> Any:
    """The dataset that `save_to_disk` wrote to a folder; of several splits the only one."""
    dataset = library("datasets").load_from_disk(str(folder))
    if isinstance(dataset, dict):
        if len(dataset) != 1:
            names = ", ".join(dataset)
            raise ConfigError(f"{folder} has the splits {names}; name one, {folder}/SPLIT")
        (dataset,) = dataset.values()
    return dataset


def _on_hub(source: str, streaming: bool) -> Any:
    """The dataset 'hf:NAME[:CONFIG][:SPLIT]', or one file of the hub, 'hf://...'."""
    found: dict[str, Any]
    name, *more = source.removeprefix("hf:").split(":")
    if name.startswith("//"):
        delimiter = DELIMITERS.get(content_suffix(source))
        kind = "parquet" if content_suffix(source) == ".parquet" else "json"
        found = {"path": kind, "data_files": source, "split": "train"}
        found |= {"path": "csv", "delimiter": delimiter} if delimiter else {}
    elif len(more) > 2:
        raise ConfigError(f"a dataset is 'hf:NAME[:CONFIG][:SPLIT]', not {source!r}")
    else:
        config, split = more if len(more) == 2 else (None, *more, "train")[:2]
        found = {"path": name, "name": config, "split": split}
    datasets = library("datasets")
    datasets.disable_progress_bars()
    with reading(source):
        return datasets.load_dataset(**found, streaming=streaming)


def _dataset_rows(source: object, rows: Iterable[Any]) -> Iterator[Entry]:
    with reading(source):
        for number, values in enumerate(rows):
            yield Row(f"{source}, row {number}", values)
