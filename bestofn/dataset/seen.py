"""Which prompts a run has seen, so that none is answered twice."""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt, comparable, content_key, folded, written
from bestofn.types import Prompt


class SeenPrompts:
    """The prompts that are answered or under way, as hashes: memory for a million is 110 MB.

    Args:
        columns: Whether a prompt that is answered must have the columns that it had then.
    """

    def __init__(self, *, columns: bool = False) -> None:
        # The hash of the content by that of the id; negative once the input has come to it.
        self._known: dict[int, int] = {}
        self._columns: dict[int, int] | None = {} if columns else None

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Notes a row of the output.

        Raises:
            ConfigError: its prompt is in an earlier row.
        """
        key = _hash(row["id"])
        if key in self._known:
            raise ConfigError(f"the id {row['id']!r} is in an earlier line of the output")
        prompt = as_prompt(written(row["prompt"]), row["id"], row.get("columns", {}))
        self._known[key] = _content(prompt)
        if self._columns is not None:
            self._columns[key] = _with_columns(prompt)

    def meet(self, prompt: Prompt) -> Literal["new", "answered", "repeated"]:
        """What is known of a prompt of the input, which is known from now on.

        Raises:
            ConfigError: another prompt has its id, or its columns have changed.
        """
        key, content = _hash(prompt.id), _content(prompt)
        known = self._known.get(key)
        if known is not None and abs(known) != content:
            raise ConfigError(f"the id {prompt.id!r} is that of another prompt already")
        self._known[key] = -content
        answered_as = self._columns and self._columns.get(key)
        if answered_as and answered_as != _with_columns(prompt):
            raise ConfigError(
                f"the columns of the prompt {prompt.id!r} are not those that it was answered with; "
                "write to another file"
            )
        if known is None:
            return "new"
        return "answered" if known > 0 else "repeated"


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(folded(text).encode("utf-8", "replace"), digest_size=8).digest())


def _content(prompt: Prompt) -> int:
    return 1 + (int(content_key(prompt), 16) >> 2)


def _with_columns(prompt: Prompt) -> int:
    return _hash(json.dumps(comparable(prompt), sort_keys=True))


def read_output(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an output file, as objects; a last line that is cut off is left out.

    Raises:
        ConfigError: it cannot be read, or a line is no row of a pool or a selection.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                row = _object(line, f"{path}, line {number}")
                if missing := [name for name in _needed(row) if name not in row]:
                    raise ConfigError(f"{path}, line {number}: the row has no field {missing[0]!r}")
                if wrong := _misshapen(row):
                    raise ConfigError(f"{path}, line {number}: the row's field {wrong!r} is wrong")
                yield row
    except OSError as error:
        raise ConfigError(f"the output {path} cannot be read: {error.strerror}") from None


def _needed(row: Mapping[str, Any]) -> list[str]:
    """The fields of a pool row, and of a selection those that say what was chosen."""
    chosen = ["index", "reward", "error", "tie", "fallback", "usage"]
    return ["id", "prompt", "candidates", *(chosen if "reward" in row else [])]


def succeeded(line: bytes) -> bool:
    """Whether a line of an output is a row in which nothing failed to be drawn.

    Raises:
        ConfigError: it is no row.
    """
    row = _object(line, "a line of the output")
    if "error" in row:
        return row["error"] is None
    if wrong := _misshapen({"candidates": []} | row):
        raise ConfigError(f"a line of the output: the row's field {wrong!r} is wrong")
    return not any(candidate.get("error") for candidate in row.get("candidates", []))


def _misshapen(row: Mapping[str, Any]) -> str | None:
    """The first field with a value of the wrong type, None if all are right."""
    for name, kind in _KINDS.items():
        if name in row and not isinstance(row[name], kind):
            return name
    for place, candidate in enumerate(row["candidates"]):
        if not isinstance(candidate, dict):
            return f"candidates.{place}"
        scores = candidate.get("scores") or {}
        if not isinstance(scores, dict) or not all(isinstance(s, dict) for s in scores.values()):
            return f"candidates.{place}.scores"
    return None


_KINDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "reward": str,
    "error": (str, NoneType),
    "tie": bool,
    "fallback": bool,
    "usage": dict,
    "candidates": list,
}


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: a row is a JSON object, not {type(row).__name__}")
    return row
