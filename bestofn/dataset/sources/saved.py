"""Folders that `save_to_disk` of the package `datasets` wrote."""

import json
from functools import partial
from pathlib import Path

from bestofn.dataset.sources.base import Part, unreadable
from bestofn.dataset.sources.hub import dataset_entries
from bestofn.errors import ConfigError

SPLITS = "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder is such a dataset, or one of several splits."""
    try:
        dataset = all((folder / name).is_file() for name in ("state.json", "dataset_info.json"))
        return dataset or (folder / SPLITS).is_file()
    except (OSError, ValueError):  # it cannot be a path
        return False


def saved_part(folder: Path) -> Part:
    """The dataset in a folder; of several splits the only one.

    Raises:
        ConfigError: it cannot be read, has several splits, or the package is missing.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError("Hugging Face datasets need: pip install 'bestofn[datasets]'") from None
    if (folder / SPLITS).is_file():
        folder = folder / _only_split(folder)
    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises whatever went wrong below it
        raise unreadable(folder, error) from None
    columns = tuple(dataset.column_names)
    return Part(str(folder), partial(dataset_entries, str(folder), dataset), columns)


def _only_split(folder: Path) -> str:
    try:
        splits: list[str] = json.loads((folder / SPLITS).read_text("utf-8"))["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        raise unreadable(folder, f"{SPLITS} does not name its splits") from None
    if len(splits) != 1:
        raise ConfigError(
            f"{folder} has the splits {', '.join(splits) or 'none'}; name one of them, such as "
            f"{folder / (splits or ['train'])[0]}"
        )
    return splits[0]
