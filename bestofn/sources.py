"""Where prompts come from: JSONL files, Hugging Face datasets, the tiny world."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import as_prompt, system_message
from bestofn.types import Message, Prompt

FORMS = (
    "a JSONL file (also .gz), 'hf:NAME[:CONFIG][:SPLIT]', 'hf://' and a file on the hub, or "
    "'tiny:COUNT'"
)


def read_prompts(
    source: str,
    *,
    prompt_column: str = "prompt",
    id_column: str | None = None,
    system: str | None = None,
    limit: int | None = None,
    shuffle: int | None = None,
) -> list[Prompt]:
    """The prompts of a source; the other columns of its rows come along as `Prompt.columns`.

    Args:
        source: A JSONL file, plain or gzipped; "hf:NAME[:CONFIG][:SPLIT]" for a dataset of the
            hub or a folder with data files; "hf://datasets/OWNER/NAME/FILE" for one file of the
            hub; "tiny:COUNT" for held-out instructions of the tiny world.
        prompt_column: Holds a text, or a list of chat messages.
        id_column: Names the prompt; by default a hash of its content does.
        system: A system prompt for prompts that have none.
        limit: How many rows to take at most.
        shuffle: The seed of a shuffle of all rows, before the limit.

    Raises:
        ConfigError: the source cannot be read, or a row is wrong; the message says which.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    rows = _rows(source, None if shuffle is not None else limit)
    if shuffle is not None:
        rows = list(rows)
        Random(shuffle).shuffle(rows)
        rows = rows[:limit]
    prompts = [_prompt(where, row, prompt_column, id_column, system) for where, row in rows]
    if not prompts:
        raise ConfigError(f"{source} holds no prompts")
    return prompts


Row = tuple[str, Mapping[str, Any]]


def _rows(source: str, limit: int | None) -> Iterable[Row]:
    kind, colon, rest = source.partition(":")
    if source.startswith("hf://"):
        return _dataset_rows(
            source, {"path": "json", "data_files": source, "split": "train"}, limit
        )
    if kind == "hf" and rest:
        name, *more = rest.split(":")
        if len(more) > 2:
            raise ConfigError(f"a dataset is 'hf:NAME[:CONFIG][:SPLIT]', not {source!r}")
        config, split = more if len(more) == 2 else (None, *more, "train")[:2]
        return _dataset_rows(source, {"path": name, "name": config, "split": split}, limit)
    if kind == "tiny" and colon:
        return _tiny_rows(source, rest, limit)
    return _file_rows(Path(source), limit)


def _file_rows(path: Path, limit: int | None) -> Iterator[Row]:
    taken = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                if taken == limit:
                    return
                taken += 1
                yield f"{path}, line {number}", _json_object(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}; prompts are {FORMS}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"the prompts {path} cannot be read: {error}") from None


def _json_object(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: a row is a JSON object, not {type(row).__name__}")
    return row


def _dataset_rows(source: str, arguments: dict[str, Any], limit: int | None) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        raise ConfigError("Hugging Face datasets need: pip install 'bestofn[datasets]'") from None
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(**arguments)
    except Exception as error:  # the library raises whatever went wrong below it
        sentence = " ".join(str(error).split())
        raise ConfigError(f"the dataset {source} cannot be loaded: {sentence}") from None
    for number in range(min(len(dataset), len(dataset) if limit is None else limit)):
        yield f"{source}, row {number}", dataset[number]


def _tiny_rows(source: str, count: str, limit: int | None) -> Iterator[Row]:
    from bestofn.tiny import heldout_tasks

    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"instructions of the tiny world are 'tiny:COUNT', not {source!r}")
    for number, task in enumerate(heldout_tasks(int(count))[:limit]):
        yield f"{source}, row {number}", {"prompt": task.instruction, "family": task.family}


def _prompt(
    where: str,
    row: Mapping[str, Any],
    prompt_column: str,
    id_column: str | None,
    system: str | None,
) -> Prompt:
    for column in filter(None, (prompt_column, id_column)):
        if column not in row:
            known = ", ".join(map(repr, row))
            raise ConfigError(f"{where}: no column {column!r}; the row has {known}")
    columns = {
        name: _plain(value) for name, value in row.items() if name not in (prompt_column, id_column)
    }
    name = None if id_column is None else str(row[id_column])
    try:
        prompt = as_prompt(row[prompt_column], name, columns)
        if system is not None and system_message(prompt) is None:
            prompt = as_prompt((Message("system", system), *prompt.messages), name, columns)
    except BestOfNError as error:
        raise ConfigError(f"{where}: column {prompt_column!r}: {error}") from None
    return prompt


def _plain(value: Any) -> Any:
    """A column's value as a pool's row can hold it: NaN is null, a date its text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
