"""Rows of whatever a user names: a file, a folder, a stream, a data set, an iterable."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from bestofn.errors import ConfigError
from bestofn.sources.files import (
    COMPRESSED,
    Found,
    Row,
    file_rows,
    is_known,
    json_rows,
    kind_of,
    line_count,
    parquet_count,
)

FORMS = (
    "a file or folder of JSONL, Parquet, CSV or TSV (also .gz, .zst), '-' for JSONL on stdin, "
    "'hf:NAME[:CONFIG][:SPLIT]', 'hf://' and a file on the hub, or 'tiny:COUNT'"
)

Source = str | Path | Iterable[Any]


def read_rows(source: Source, *, streaming: bool = True) -> Iterator[Found]:
    """The rows of a source, each read as it is needed, and the faults of those that are none.

    Args:
        source: One of `FORMS`, or any iterable of mappings or prompts, such as a
            `datasets.Dataset`.
        streaming: Whether data sets of the hub are streamed; else they are downloaded first.

    Raises:
        ConfigError: the source as a whole cannot be read.
    """
    if isinstance(source, Path):
        return _path_rows(source)
    if not isinstance(source, str):
        return _item_rows(source)
    kind, colon, rest = source.partition(":")
    if source == "-":
        return json_rows(sys.stdin.buffer, "stdin")
    if source.startswith("hf://"):
        return _dataset_rows(
            source, {"path": "json", "data_files": source, "split": "train"}, streaming
        )
    if kind == "hf" and rest:
        name, *more = rest.split(":")
        if len(more) > 2:
            raise ConfigError(f"a dataset is 'hf:NAME[:CONFIG][:SPLIT]', not {source!r}")
        config, split = more if len(more) == 2 else (None, *more, "train")[:2]
        return _dataset_rows(source, {"path": name, "name": config, "split": split}, streaming)
    if kind == "tiny" and colon:
        return _tiny_rows(source, rest)
    return _path_rows(Path(source))


def _path_rows(path: Path) -> Iterator[Found]:
    if not path.exists():
        raise ConfigError(f"there is no file {path}; prompts are {FORMS}")
    if not path.is_dir():
        return file_rows(path)
    files = sorted(file for file in path.iterdir() if _is_shard(file))
    if not files:
        raise ConfigError(f"the folder {path} has no JSONL, Parquet, CSV or TSV files")
    return (row for file in files for row in file_rows(file))


def _is_shard(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", "_")) and is_known(path)


def _item_rows(items: Iterable[Any]) -> Iterator[Found]:
    if hasattr(items, "iterrows"):  # iterating a DataFrame gives the names of its columns
        items = items.to_dict("records")  # type: ignore[attr-defined]
    if isinstance(items, Mapping) or not isinstance(items, Iterable):
        raise ConfigError(f"prompts are {FORMS}, or rows in an iterable, not {items!r:.50}")
    return (Row(f"row {number}", item) for number, item in enumerate(items))


def _dataset_rows(source: str, arguments: dict[str, Any], streaming: bool) -> Iterator[Found]:
    try:
        import datasets
    except ImportError:
        raise ConfigError("Hugging Face datasets need: pip install 'bestofn[datasets]'") from None
    datasets.disable_progress_bars()
    try:
        for number, row in enumerate(datasets.load_dataset(**arguments, streaming=streaming)):
            yield Row(f"{source}, row {number}", row, fixed=True)
    except Exception as error:  # the library raises whatever went wrong below it
        sentence = " ".join(str(error).split())
        raise ConfigError(f"the dataset {source} cannot be loaded: {sentence}") from None


def _tiny_rows(source: str, count: str) -> Iterator[Found]:
    from bestofn.tiny import heldout_tasks

    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"instructions of the tiny world are 'tiny:COUNT', not {source!r}")
    for number, task in enumerate(heldout_tasks(int(count))):
        values = {"prompt": task.instruction, "family": task.family}
        yield Row(f"{source}, row {number}", values)


def count_rows(source: Source) -> int | None:
    """About how many rows a source has, None where it would have to be read to tell."""
    if isinstance(source, Sized) and not isinstance(source, str):
        return len(source)
    if not isinstance(source, str | Path) or str(source).startswith(("hf:", "-")):
        return None
    kind, _, count = str(source).partition(":")
    if kind == "tiny" and count.isdecimal():
        return int(count)
    path = Path(source)
    files = filter(_is_shard, path.iterdir()) if path.is_dir() else [path]
    counts = [_file_count(file) for file in files]
    return None if None in counts else sum(filter(None, counts))


def _file_count(path: Path) -> int | None:
    if path.suffix in COMPRESSED or kind_of(path) == ".json":
        return None
    return parquet_count(path) if kind_of(path) == ".parquet" else line_count(path)
