"""Prompts from the rows of a source, one at a time or as a list."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from numbers import Integral, Number
from os import PathLike
from random import Random
from typing import Any, TypedDict, Unpack

from bestofn.dataset.sources.files import Entry, Row, fault
from bestofn.dataset.sources.rows import Source, open_source, read_rows, without_faults
from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import Tools, as_prompt, clean, conversation, plain, spoken
from bestofn.tools import as_tools
from bestofn.types import Message, Prompt

USUAL_COLUMNS = ("prompt", "messages", "conversations", "conversation")
"""Where a prompt is looked for, in this order, if no column is named."""
SHAREGPT_COLUMNS = ("conversations", "conversation")
DROPPED = "dropped_answer"
FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
"""What means something in a template: two braces, or a column."""


class SourceOptions(TypedDict, total=False):
    """How a source is read; see `PromptForm`."""

    prompt_column: str
    id_column: str | None
    system_column: str | None
    tools_column: str | None
    template: str | None
    system: str | None
    drop_last_assistant: bool
    limit: int | None
    shard: tuple[int, int] | None


def iter_prompts(
    source: Source,
    *,
    streaming: bool = True,
    accept: Callable[[Prompt], bool] | None = None,
    bad_row: Callable[[ConfigError], None] | None = None,
    **options: Unpack[SourceOptions],
) -> Iterator[Prompt]:
    """The prompts of a source, read as they are taken.

    The other columns of a row come along as `Prompt.columns`.

    Args:
        source, streaming, bad_row: As for `read_rows`.
        accept: Says whether to take a prompt; a ConfigError that it raises is a fault of the row.
        options: The fields of `PromptForm`.

    Raises:
        ConfigError: an option is wrong or there is no such source (at once), the source cannot be
            read, or a row is wrong; the message names its place.
    """
    form = PromptForm(**options)
    entries = islice(open_source(source, streaming=streaming), form.limit)
    return without_faults(form.prompts(entries, accept), bad_row)


def read_prompts(
    source: Source,
    *,
    shuffle: int | None = None,
    streaming: bool = False,
    **options: Unpack[SourceOptions],
) -> list[Prompt]:
    """What `iter_prompts` gives, as a list; none at all is a ConfigError too.

    Args:
        source, streaming, options: As for `iter_prompts`.
        shuffle: The seed of a shuffle of all rows, before the limit.
    """
    name = str(source) if isinstance(source, str | PathLike) else "the source"
    if shuffle is not None:
        rows = list(read_rows(source, streaming=streaming))
        Random(shuffle).shuffle(rows)
        source = rows
    prompts = list(iter_prompts(source, streaming=streaming, **options))
    if not prompts:
        raise ConfigError(f"{name} holds no prompts")
    return prompts


def _hash(id: str) -> int:
    digest = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class PromptForm:
    """How rows become prompts.

    Attributes:
        prompt_column: Holds a text, or a list of chat messages. Rows without the default "prompt"
            may have "messages", "conversations" or "conversation" instead.
        id_column: Names the prompt, by a text or an integer; by default a hash of its content does.
        system_column: Holds a system prompt; null and blank text are none. By default "system" for
            a prompt out of "conversations" or "conversation", as ShareGPT has it.
        tools_column: Holds the functions that the answer may call, in the form of OpenAI's API or
            as JSON text; null means no tools.
        template: A text such as "Solve: {problem}" over columns, in place of `prompt_column`;
            "{{" and "}}" are braces.
        system: A system prompt for prompts that have none.
        drop_last_assistant: Of a conversation that ends with an answer, drop the answer; the
            column "dropped_answer" then has it.
        limit: How many rows to take at most, bad ones included.
        shard: (i, k) takes the i-th of k shares, i from 1. A hash of its id says which share a
            prompt is in, so that equal ids are in the same one; a bad row goes by its position.
    """

    prompt_column: str = "prompt"
    id_column: str | None = None
    system_column: str | None = None
    tools_column: str | None = None
    template: str | None = None
    system: str | None = None
    drop_last_assistant: bool = False
    limit: int | None = None
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, not {self.limit}")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise ConfigError(f"a shard is (i, k) with i from 1 to k, not {self.shard}")
        text = "{x}" if self.template is None else self.template
        names = any(match[1] for match in FIELD.finditer(text))
        if not names or {*FIELD.sub("", text)} & {*"{}"}:
            raise ConfigError(
                "the template is wrong: columns are written {problem}, braces of the text {{ and }}"
            )

    def prompts(
        self, entries: Iterable[Entry], accept: Callable[[Prompt], bool] | None
    ) -> Iterator[Prompt | ConfigError]:
        """The prompts of rows, those of the shard that are accepted, and what is wrong."""
        share, shares = self.shard or (1, 1)
        for position, entry in enumerate(entries):
            made = self._made(entry) if isinstance(entry, Row) else entry
            place = _hash(made.id) if isinstance(made, Prompt) else position
            if place % shares != share - 1:
                continue
            try:
                if accept is None or isinstance(made, ConfigError) or accept(made):
                    yield made
            except ConfigError as error:
                yield fault(getattr(entry, "where", ""), error)

    def _made(self, row: Row) -> Prompt | ConfigError:
        try:
            return self._prompt(row.values)
        except (BestOfNError, RecursionError) as error:
            return fault(row.where, error)

    def _prompt(self, values: Mapping[str, Any]) -> Prompt:
        column, value = self._asked(values)
        name, others = "", {key: item for key, item in values.items() if key != column}
        if isinstance(value, Prompt):
            name, others = value.id, dict(value.columns)
        name = self._id(values) or name
        system = self._system(values, column)
        taken = (self.id_column, self.system_column, self.tools_column)
        tools = value.tools if isinstance(value, Prompt) else ()
        if self.tools_column is not None:
            tools = self._tools(values, self.tools_column)
        columns = plain({key: item for key, item in others.items() if key not in taken})
        try:
            messages = self._asking(conversation(value), columns)
            first = messages[0].role if messages else ""
            if system is not None and first not in ("system", "developer"):
                messages = (Message("system", system), *messages)
            return as_prompt(messages, name, columns, tools)
        except BestOfNError as error:
            label = "the template" if column is None else f"column {column!r}"
            raise ConfigError(f"{label}: {error}") from None

    def _asked(self, values: Mapping[str, Any]) -> tuple[str | None, Any]:
        """The column that the prompt is in, None for a template, and what is asked."""
        if self.template is not None:
            return None, FIELD.sub(partial(_field, values), self.template)
        names = USUAL_COLUMNS if self.prompt_column == "prompt" else ()
        column = next((name for name in names if name in values), self.prompt_column)
        return column, _cell(values, column)

    def _asking(
        self, messages: tuple[Message, ...], columns: dict[str, Any]
    ) -> tuple[Message, ...]:
        """The messages up to where the model is to answer; an answer that is there is a column."""
        if not messages or messages[-1].role != "assistant":
            return messages
        if not self.drop_last_assistant:
            raise ConfigError(
                "the last message of a prompt must be a user message, not an answer of the "
                "assistant; --drop-last-assistant (drop_last_assistant=True) drops it"
            )
        if DROPPED in columns:
            raise ConfigError(f"the row has a column {DROPPED!r} of its own; rename it")
        columns[DROPPED] = clean(spoken(messages[-1]))
        return messages[:-1]

    def _id(self, values: Mapping[str, Any]) -> str:
        if self.id_column is None:
            return ""
        value = _cell(values, self.id_column)
        if isinstance(value, bool) or not isinstance(value, str | Integral) or value == "":
            raise ConfigError(
                f"column {self.id_column!r}: an id is a text or an integer, not {_kind(value)}"
            )
        return str(value)

    def _tools(self, values: Mapping[str, Any], column: str) -> Tools:
        try:
            return as_tools(_without_null(plain(_cell(values, column))))
        except ConfigError as error:
            raise ConfigError(f"column {column!r}: {error}") from None

    def _system(self, values: Mapping[str, Any], column: str | None) -> str | None:
        # ShareGPT has a system prompt beside the conversation.
        usual = "system" if column in SHAREGPT_COLUMNS and "system" in values else None
        holder = self.system_column or usual
        value = None if holder is None else _cell(values, holder)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"column {holder!r}: a system prompt is text, not {_kind(value)}")
        return value if value and value.strip() else self.system


def _cell(values: Mapping[str, Any], column: str) -> Any:
    if column not in values:
        names = ", ".join(map(repr, values)) or "none"
        raise ConfigError(f"no column {column!r}; the row has {names}")
    return values[column]


def _field(values: Mapping[str, Any], match: re.Match[str]) -> str:
    """The text for what `FIELD` matches in a template."""
    if (name := match[1]) is None:
        return match[0][0]
    value = plain(_cell(values, name))  # of numpy and pandas too, whose nulls are of many kinds
    if isinstance(value, bool) or not isinstance(value, str | Number):
        raise ConfigError(
            f"column {name!r} is {_kind(value)}; the template needs a text or a number"
        )
    return str(value)


def _without_null(value: Any) -> Any:
    """A value without members that are null: a table has each one in every row."""
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    return "null" if value is None else "empty" if value == "" else type(value).__name__
