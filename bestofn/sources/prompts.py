"""Prompts of the rows of a source."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from random import Random
from string import Formatter
from typing import Any, TypedDict

from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import as_prompt, content_id, plain, system_message
from bestofn.sources.files import Row
from bestofn.sources.rows import Source, read_rows
from bestofn.types import Message, Prompt

BadRow = Callable[[ConfigError], None]


class SourceOptions(TypedDict, total=False):
    """How a source is read; see `iter_prompts`."""

    prompt_column: str
    id_column: str | None
    system_column: str | None
    template: str | None
    system: str | None
    limit: int | None
    shard: tuple[int, int] | None


def iter_prompts(
    source: Source,
    *,
    prompt_column: str = "prompt",
    id_column: str | None = None,
    system_column: str | None = None,
    template: str | None = None,
    system: str | None = None,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    streaming: bool = True,
    accept: Callable[[Prompt], bool] | None = None,
    bad_row: BadRow | None = None,
) -> Iterator[Prompt]:
    """The prompts of a source, each read as it is needed.

    The other columns of a row come along as `Prompt.columns`.

    Args:
        source: A file or folder of JSON lines, Parquet, CSV or TSV, perhaps compressed (.gz, .zst);
            "-" for JSON lines on stdin; "hf:NAME[:CONFIG][:SPLIT]" for a dataset of the hub or a
            folder with its data files; "hf://datasets/OWNER/NAME/FILE" for one JSON file of the
            hub; "tiny:COUNT" for held-out instructions of the tiny world; or an iterable of rows
            as mappings, or of prompts.
        prompt_column: Holds a text, or a list of chat messages. Rows without a column "prompt" may
            have "messages" instead.
        id_column: Holds the prompt's id, text or an integer; by default it is a hash of what the
            model is asked.
        system_column: Holds a system prompt, or null.
        template: Makes the prompt of several columns, such as "Solve: {problem}", in the place of
            a prompt column; {{ and }} are braces.
        system: A system prompt for prompts that have none.
        limit: How many rows to read at most.
        shard: (i, k) takes only the i-th of k parts of the prompts, counted from 1. Which part a
            prompt is in depends on its id alone.
        streaming: Whether data sets of the hub are streamed; else they are downloaded first.
        accept: Asked of each prompt; those for which it says no are left out. A ConfigError that
            it raises is a fault of the row.
        bad_row: Told of each row that cannot be used, which is then left out; by default the first
            one is an error.

    Raises:
        ConfigError: the source cannot be read, or a row is wrong; the message names file and line.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    reader = _Reader(prompt_column, id_column, system_column, _Template.of(template), system)
    part = _part(shard)
    rows = islice(read_rows(source, streaming=streaming), limit)
    return _prompts(rows, reader, part, accept, bad_row)


def read_prompts(
    source: Source,
    *,
    prompt_column: str = "prompt",
    id_column: str | None = None,
    system_column: str | None = None,
    template: str | None = None,
    system: str | None = None,
    limit: int | None = None,
    shuffle: int | None = None,
) -> list[Prompt]:
    """All prompts of a source, see `iter_prompts`.

    Args:
        shuffle: The seed of a shuffle of all rows, before the limit.

    Raises:
        ConfigError: the source cannot be read, a row is wrong, or there are none.
    """
    columns = partial(
        iter_prompts,
        prompt_column=prompt_column,
        id_column=id_column,
        system_column=system_column,
        template=template,
        system=system,
        streaming=False,
    )
    if shuffle is None:
        prompts = list(columns(source, limit=limit))
    else:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be at least 1, not {limit}")
        prompts = list(columns(source))
        Random(shuffle).shuffle(prompts)
        prompts = prompts[:limit]
    if not prompts:
        raise ConfigError(f"{source} holds no prompts")
    return prompts


Part = Callable[[str], bool]
"""Whether what is named so belongs to a shard."""


def _part(shard: tuple[int, int] | None) -> Part:
    if shard is None:
        return lambda _: True
    place, count = shard
    if not 1 <= place <= count:
        raise ConfigError(f"a shard is one of 1/{count} to {count}/{count}, not {place}/{count}")

    def belongs(name: str) -> bool:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) % count == place - 1

    return belongs


def _prompts(
    rows: Iterator[Row | ConfigError],
    reader: "_Reader",
    part: Part,
    accept: Callable[[Prompt], bool] | None,
    bad_row: BadRow | None,
) -> Iterator[Prompt]:
    for number, row in enumerate(rows):
        found = row if isinstance(row, ConfigError) else _accepted(row, reader, part, accept)
        if isinstance(found, Prompt):
            yield found
        # A row that cannot be used belongs to the part of its place.
        elif found is not None and part(str(number)):
            if bad_row is None:
                raise found
            bad_row(found)


def _accepted(
    row: Row, reader: "_Reader", part: Part, accept: Callable[[Prompt], bool] | None
) -> Prompt | ConfigError | None:
    """The row's prompt, what is wrong with it, or None where it is left out.

    Raises:
        ConfigError: no row of the source has a column that is asked for.
    """
    try:
        prompt = reader.prompt(row.values)
        wanted = part(prompt.id) and (accept is None or accept(prompt))
    except BestOfNError as error:
        fault = ConfigError(f"{row.where}: {error}")
        if row.fixed and isinstance(error, _NoColumnError):
            raise fault from None
        return fault
    return prompt if wanted else None


class _NoColumnError(ConfigError):
    def __init__(self, name: str, row: Mapping[str, Any]) -> None:
        known = ", ".join(map(repr, row))
        super().__init__(f"no column {name!r}; the row has {known}")


@dataclass(frozen=True, slots=True)
class _Template:
    """A prompt of several columns: texts, and the columns that follow each."""

    pieces: tuple[tuple[str, str | None], ...]

    @staticmethod
    def of(text: str | None) -> "_Template | None":
        if text is None:
            return None
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"the template {text!r} is wrong: {error}") from None
        for _, name, spec, conversion in parsed:
            if name is not None and (not name or spec or conversion or set(name) & set(".[]")):
                raise ConfigError(
                    f"the template {text!r} may hold columns such as {{problem}} and nothing else "
                    "in braces"
                )
        if not any(name for _, name, _, _ in parsed):
            raise ConfigError(f"the template {text!r} names no column, such as {{problem}}")
        return _Template(tuple((literal, name) for literal, name, _, _ in parsed))

    def filled(self, row: Mapping[str, Any]) -> str:
        return "".join(
            literal + ("" if name is None else self._text(row, name))
            for literal, name in self.pieces
        )

    def _text(self, row: Mapping[str, Any], name: str) -> str:
        value = _column(row, name)
        if isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"column {name!r} must be text or a number, not {value!r}")
        return str(value)


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a row becomes a prompt."""

    prompt_column: str
    id_column: str | None
    system_column: str | None
    template: _Template | None
    system: str | None

    def prompt(self, row: Any) -> Prompt:
        """The row's prompt.

        Raises:
            ConfigError: the row cannot be used.
        """
        if not isinstance(row, Mapping):
            return _with_system(as_prompt(row), self.system)
        column = None if self.template else self._prompt_column(row)
        name = None if self.id_column is None else self._id(row, self.id_column)
        others = {
            str(key): plain(value)
            for key, value in row.items()
            if key not in (column, self.id_column, self.system_column)
        }
        system = self._system(row)
        if self.template is not None:
            return _with_system(as_prompt(self.template.filled(row), name, others), system)
        value = _column(row, str(column))
        try:
            return _with_system(as_prompt(value, name, others), system)
        except ConfigError as error:
            raise ConfigError(f"column {column!r}: {error}") from None

    def _prompt_column(self, row: Mapping[str, Any]) -> str:
        """The prompt's column; rows of conversations have "messages"."""
        if self.prompt_column == "prompt" and "prompt" not in row and "messages" in row:
            return "messages"
        return self.prompt_column

    def _id(self, row: Mapping[str, Any], column: str) -> str:
        value = _column(row, column)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ConfigError(f"column {column!r}: an id is text or an integer, not {value!r}")
        return str(value)

    def _system(self, row: Mapping[str, Any]) -> str | None:
        value = None if self.system_column is None else _column(row, self.system_column)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"column {self.system_column!r} must be text, not {value!r}")
        return value or self.system


def _with_system(prompt: Prompt, system: str | None) -> Prompt:
    if system is None or system_message(prompt) is not None:
        return prompt
    known_id = "" if prompt.id == content_id(prompt) else prompt.id
    return as_prompt((Message("system", system), *prompt.messages), known_id, prompt.columns)


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise _NoColumnError(name, row)
    return row[name]
