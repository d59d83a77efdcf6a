"""Files and folders: each file is read as its bytes and name say, as JSON if they say nothing."""

from functools import partial
from pathlib import Path

from bestofn.dataset.sources.base import FORMS, Part, unreadable
from bestofn.dataset.sources.json_rows import file_entries
from bestofn.dataset.sources.packed import (
    PACKED,
    PARQUET,
    content_suffix,
    first_bytes,
    kind_by_bytes,
)
from bestofn.dataset.sources.saved import is_saved, saved_part
from bestofn.dataset.sources.tables import csv_part, parquet_count, parquet_part
from bestofn.errors import ConfigError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
KNOWN = (".jsonl", ".json", ".ndjson", *DELIMITERS)
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""What datasets have beside their rows."""
BESIDE = (".manifest.json", ".scores.json")
"""What our own files have beside them."""


def file_parts(path: Path) -> list[Part]:
    """A file, or the files of a folder in the order of their names, or a saved dataset.

    Raises:
        ConfigError: there is none, or one cannot be read.
    """
    try:
        if not path.exists():
            raise ConfigError(f"there is no file {path}; prompts are {FORMS}")
        if is_saved(path):
            return [saved_part(path)]
        files = files_of(path)
        if not files:
            raise unreadable(path, "the folder holds no JSONL, CSV, TSV or Parquet file")
        return [_file_part(file) for file in files]
    except OSError as error:
        raise unreadable(path, error) from None


def files_of(path: Path) -> list[Path]:
    """The file itself, or those of a folder and its `data` that hold rows, in order."""
    if not path.is_dir():
        return [path]
    folders = [folder for folder in (path, path / "data") if folder.is_dir()]
    return sorted(file for folder in folders for file in folder.iterdir() if _holds_rows(file))


def quick_count(path: Path) -> int | None:
    """About how many rows a file has, None where it would have to be unpacked or parsed to tell."""
    head = first_bytes(path)
    kind = kind_by_bytes(head)
    if kind == PARQUET:
        return parquet_count(path)
    if kind in PACKED or not path.is_file() or head.lstrip().startswith(b"["):
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _holds_rows(path: Path) -> bool:
    known = path.suffix.lower() == ".parquet" or content_suffix(path) in KNOWN
    beside = path.name in METADATA or any(
        path.name.endswith(end) and path.with_name(path.name.removesuffix(end)).exists()
        for end in BESIDE
    )
    return known and not beside and not path.name.startswith(".") and path.is_file()


def _file_part(path: Path) -> Part:
    is_parquet = kind_by_bytes(first_bytes(path)) == PARQUET
    if is_parquet or path.suffix.lower() == ".parquet":
        return parquet_part(path)
    if delimiter := DELIMITERS.get(content_suffix(path)):
        return csv_part(path, delimiter)
    return Part(str(path), partial(file_entries, path))
