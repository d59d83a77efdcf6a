"""Data sets of the Hugging Face hub, and folders that its package reads."""

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from bestofn.dataset.sources.base import Entry, Part, Row, unreadable
from bestofn.dataset.sources.packed import content_suffix
from bestofn.errors import ConfigError

TABLES: dict[str, dict[str, str]] = {
    ".parquet": {"path": "parquet"},
    ".csv": {"path": "csv"},
    ".tsv": {"path": "csv", "delimiter": "\t"},
}


def hub_part(source: str, streaming: bool) -> Part:
    """The data set 'hf:NAME[:CONFIG][:SPLIT]', or one file of the hub, 'hf://...'.

    Raises:
        ConfigError: it cannot be loaded, or the package is missing.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError("Hugging Face datasets need: pip install 'bestofn[datasets]'") from None
    arguments = _arguments(source)
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(**arguments, streaming=streaming)
    except Exception as error:  # the library raises whatever went wrong below it
        sentence = " ".join(str(error).split())
        raise ConfigError(f"the dataset {source} cannot be loaded: {sentence}") from None
    return Part(source, partial(dataset_entries, source, dataset))


def _arguments(source: str) -> dict[str, Any]:
    if source.startswith("hf://"):
        reader = TABLES.get(content_suffix(PurePosixPath(source)), {"path": "json"})
        return {**reader, "data_files": source, "split": "train"}
    name, *more = source.removeprefix("hf:").split(":")
    if len(more) > 2:
        raise ConfigError(f"a dataset is 'hf:NAME[:CONFIG][:SPLIT]', not {source!r}")
    config, split = more if len(more) == 2 else (None, *more, "train")[:2]
    return {"path": name, "name": config, "split": split}


def dataset_entries(source: str, dataset: Any) -> Iterator[Entry]:
    """The rows of a dataset.

    Raises:
        ConfigError: one cannot be read.
    """
    try:
        for number, values in enumerate(dataset):
            yield Row(f"{source}, row {number}", values)
    except Exception as error:  # of the library, which reads on while it is asked for rows
        raise unreadable(source, error) from None
