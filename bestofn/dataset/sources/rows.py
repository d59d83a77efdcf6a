"""The rows of anything that rows can come from, one at a time."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bestofn.dataset.sources.base import FORMS, INSTALL, Entry, Part, Row, Source, fault, unreadable
from bestofn.dataset.sources.files import (
    content_suffix,
    file_part,
    files_of,
    quick_count,
    stdin_entries,
)
from bestofn.errors import ConfigError
from bestofn.types import Prompt

T = TypeVar("T")
HUB_TABLES: dict[str, dict[str, str]] = {
    ".parquet": {"path": "parquet"},
    ".csv": {"path": "csv"},
    ".tsv": {"path": "csv", "delimiter": "\t"},
}
SPLITS = "dataset_dict.json"
"""What `save_to_disk` writes beside a dataset of several splits."""


def read_rows(
    source: Source,
    bad_row: Callable[[ConfigError], None] | None = None,
    *,
    streaming: bool = False,
) -> Iterator[Row]:
    """The rows of a source, read as they are taken.

    Args:
        source: A file (JSONL, a JSON array, CSV, TSV, each also .gz, .zst, .bz2 and .xz, or
            Parquet); a folder, of which all such files, and those in its sub-folder `data`, are
            read in the order of their names, or that `save_to_disk` wrote; "-" for JSON on standard
            input;
            "hf:NAME[:CONFIG][:SPLIT]" for a dataset of the hub or a folder with data files;
            "hf://datasets/OWNER/NAME/FILE" for one file of the hub; "tiny:COUNT" for held-out
            instructions of the tiny world. In Python also rows, mappings or prompts in any
            iterable, such as a list or a `datasets.Dataset`.
        bad_row: Told of each row that cannot be used, which is then left out; by default the
            first one is an error.
        streaming: Whether a dataset of the hub is read from there while its rows are taken,
            instead of being downloaded first.

    Raises:
        ConfigError: the source cannot be read; as far as that shows on opening, at once. Or a row
            is wrong; the message names its place.
    """
    return without_faults(all_entries(open_source(source, streaming=streaming)), bad_row)


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


def all_entries(parts: Iterable[Part]) -> Iterator[Entry]:
    """The rows and faults of all parts, in order."""
    return chain.from_iterable(part.entries() for part in parts)


def open_source(source: Source, *, streaming: bool) -> list[Part]:
    """What a source consists of, with the columns of those parts that are tables.

    Raises:
        ConfigError: there is no such source, or one of its tables is broken.
    """
    if isinstance(source, PathLike):
        return _path_parts(Path(source))
    if not isinstance(source, str):
        return [_python_part(source)]
    kind, colon, rest = source.partition(":")
    if source == "-":
        return [_stdin_part()]
    if kind == "hf" and rest and _is_saved(Path(rest)):
        return _path_parts(Path(rest))
    if source.startswith("hf://") or (kind == "hf" and rest):
        return [_hub_part(source, streaming)]
    if kind == "tiny" and colon:
        return [_tiny_part(source, rest)]
    return _path_parts(Path(source))


def _stdin_part() -> Part:
    file = getattr(sys.stdin, "buffer", None)
    if file is None:
        raise unreadable("-", "there are no bytes on standard input")
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file)
    return Part("-", partial(stdin_entries, buffered))


def _tiny_part(source: str, count: str) -> Part:
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"instructions of the tiny world are 'tiny:COUNT', not {source!r}")
    return Part(source, partial(_tiny_entries, source, int(count)))


def _tiny_entries(source: str, count: int) -> Iterator[Entry]:
    from bestofn.tiny import heldout_tasks

    for number, task in enumerate(heldout_tasks(count)):
        yield Row(f"{source}, row {number}", {"prompt": task.instruction, "family": task.family})


# --- files and the package `datasets` -------------------------------------------------------------


def _path_parts(path: Path) -> list[Part]:
    """A file, or the files of a folder in the order of their names, or a saved dataset."""
    try:
        if not path.exists():
            raise ConfigError(f"there is no file {path}; prompts are {FORMS}")
        if _is_saved(path):
            return [_saved_part(path)]
        files = files_of(path)
        if not files:
            raise unreadable(path, "the folder holds no JSONL, CSV, TSV or Parquet file")
        return [file_part(file) for file in files]
    except OSError as error:
        raise unreadable(path, error) from None


def _is_saved(folder: Path) -> bool:
    try:
        dataset = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
        return dataset or (folder / SPLITS).is_file()
    except (OSError, ValueError):  # it cannot be a path
        return False


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"Hugging Face datasets need: {INSTALL}") from None
    datasets.disable_progress_bars()
    return datasets


def _saved_part(folder: Path) -> Part:
    """The dataset that `save_to_disk` wrote to a folder; of several splits the only one."""
    library = _datasets()
    try:
        dataset = library.load_from_disk(str(folder))
    except Exception as error:  # the library raises whatever went wrong below it
        raise unreadable(folder, error) from None
    if isinstance(dataset, library.DatasetDict):
        if len(dataset) != 1:
            raise ConfigError(
                f"{folder} has the splits {', '.join(dataset) or 'none'}; name one of them, such "
                f"as {folder / next(iter(dataset), 'train')}"
            )
        ((split, dataset),) = dataset.items()
        folder = folder / split
    columns = tuple(dataset.column_names)
    return Part(str(folder), partial(_dataset_entries, str(folder), dataset), columns)


def _hub_part(source: str, streaming: bool) -> Part:
    """The data set 'hf:NAME[:CONFIG][:SPLIT]', or one file of the hub, 'hf://...'."""
    arguments = _hub_arguments(source)
    library = _datasets()
    try:
        dataset = library.load_dataset(**arguments, streaming=streaming)
    except Exception as error:  # the library raises whatever went wrong below it
        sentence = " ".join(str(error).split())
        raise ConfigError(f"the dataset {source} cannot be loaded: {sentence}") from None
    return Part(source, partial(_dataset_entries, source, dataset))


def _hub_arguments(source: str) -> dict[str, Any]:
    if source.startswith("hf://"):
        reader = HUB_TABLES.get(content_suffix(PurePosixPath(source)), {"path": "json"})
        return {**reader, "data_files": source, "split": "train"}
    name, *more = source.removeprefix("hf:").split(":")
    if len(more) > 2:
        raise ConfigError(f"a dataset is 'hf:NAME[:CONFIG][:SPLIT]', not {source!r}")
    config, split = more if len(more) == 2 else (None, *more, "train")[:2]
    return {"path": name, "name": config, "split": split}


def _dataset_entries(source: str, dataset: Any) -> Iterator[Entry]:
    try:
        for number, values in enumerate(dataset):
            yield Row(f"{source}, row {number}", values)
    except Exception as error:  # of the library, which reads on while it is asked for rows
        raise unreadable(source, error) from None


# --- in Python ------------------------------------------------------------------------------------


def _python_part(source: Iterable[Any]) -> Part:
    if isinstance(source, Mapping) or hasattr(source, "iterrows"):
        # Iterating over these gives names, which would pass for prompts.
        raise ConfigError(
            f"a {type(source).__name__} is no list of rows; give one of its splits, or its rows "
            "as mappings (of a data frame: .to_dict('records'))"
        )
    if not isinstance(source, Iterable):
        raise ConfigError(
            f"prompts are {FORMS}, or rows in an iterable, not {type(source).__name__}"
        )
    return Part("the rows", partial(_python_entries, source))


def _python_entries(source: Iterable[Any]) -> Iterator[Entry]:
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


def count_rows(source: Source) -> int | None:
    """About how many rows a source has, None where it would have to be read to tell."""
    if isinstance(source, Sized) and not isinstance(source, str):
        return len(source)
    kind, _, count = str(source).partition(":")
    if kind == "tiny" and count.isdecimal():
        return int(count)
    path = Path(str(source))
    if not isinstance(source, str | PathLike) or not path.exists():
        return None
    counts = [quick_count(file) for file in files_of(path)]
    return None if None in counts or not counts else sum(filter(None, counts))
