"""Prompts from the rows of a source, one at a time or as a list."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from numbers import Integral, Number
from os import PathLike
from random import Random
from string import Formatter
from typing import Any, TypedDict, Unpack

from bestofn.dataset.sources.base import Entry, Part, Row, Source, fault
from bestofn.dataset.sources.rows import all_entries, open_source, read_rows, without_faults
from bestofn.errors import BestOfNError, ConfigError
from bestofn.prompts import as_prompt, clean, conversation, plain, system_message
from bestofn.types import Message, Prompt

USUAL_COLUMNS = ("prompt", "messages", "conversations", "conversation")
"""Where a prompt is looked for, in this order, if no column is named."""
SHAREGPT_COLUMNS = ("conversations", "conversation")
DROPPED = "dropped_answer"


class SourceOptions(TypedDict, total=False):
    """How a source is read; see `iter_prompts`."""

    prompt_column: str
    id_column: str | None
    system_column: str | None
    template: str | None
    system: str | None
    drop_last_assistant: bool
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
    drop_last_assistant: bool = False,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    streaming: bool = True,
    accept: Callable[[Prompt], bool] | None = None,
    bad_row: Callable[[ConfigError], None] | None = None,
) -> Iterator[Prompt]:
    """The prompts of a source, read as they are taken.

    The other columns of a row come along as `Prompt.columns`.

    Args:
        source: What `read_rows` takes.
        prompt_column: Holds a text, or a list of chat messages. Rows without the default "prompt"
            may have "messages", "conversations" or "conversation" instead.
        id_column: Names the prompt, by a text or an integer; by default a hash of its content does.
        system_column: Holds a system prompt; null and blank text are none. By default "system" for
            a prompt out of "conversations" or "conversation", as ShareGPT has it.
        template: A text such as "Solve: {problem}" over columns, in place of `prompt_column`;
            "{{" and "}}" are braces.
        system: A system prompt for prompts that have none.
        drop_last_assistant: Of a conversation that ends with an answer, drop the answer; the
            column "dropped_answer" then has it.
        limit: How many rows to take at most, bad ones included.
        shard: (i, k) takes the i-th of k shares, i from 1. A hash of its id says which share a
            prompt is in, so that equal ids are in the same one; a bad row goes by its position.
        streaming: Read a dataset of the hub while its rows are taken; else download it first.
        accept: Says whether to take a prompt; a ConfigError that it raises is a fault of the row.
        bad_row: Told of each row that cannot be used, which is then left out; by default the
            first one is an error.

    Raises:
        ConfigError: an option is wrong, the source cannot be read, or a table of it lacks a
            column: at once, as far as that shows on opening. Or a row is wrong; the message names
            its place.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ConfigError(f"a shard is (i, k) with i from 1 to k, not {shard}")
    form = _Form(
        prompt_column,
        id_column,
        system_column,
        None if template is None else _Template.parse(template),
        system,
        drop_last_assistant,
    )
    parts = open_source(source, streaming=streaming)
    for part in parts:
        form.check(part)
    prompts = _prompts(islice(all_entries(parts), limit), form, shard or (1, 1), accept)
    return without_faults(prompts, bad_row)


def read_prompts(
    source: Source,
    *,
    shuffle: int | None = None,
    streaming: bool = False,
    **options: Unpack[SourceOptions],
) -> list[Prompt]:
    """The prompts of a source, of which there is at least one.

    Args:
        source: What `read_rows` takes.
        shuffle: The seed of a shuffle of all rows, before the limit.
        streaming: As for `iter_prompts`, like all options.
        options: Of `iter_prompts`, by name.

    Raises:
        ConfigError: what `iter_prompts` raises, or there are no prompts.
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


def _prompts(
    entries: Iterator[Entry],
    form: "_Form",
    shard: tuple[int, int],
    accept: Callable[[Prompt], bool] | None,
) -> Iterator[Prompt | ConfigError]:
    share, shares = shard
    for position, entry in enumerate(entries):
        made = form.prompt(entry) if isinstance(entry, Row) else entry
        place = _hash(made.id) if isinstance(made, Prompt) else position
        if place % shares != share - 1:
            continue
        if isinstance(entry, Row) and isinstance(made, Prompt) and accept is not None:
            try:
                if not accept(made):
                    continue
            except ConfigError as error:
                made = fault(entry.where, str(error))
        yield made


def _hash(id: str) -> int:
    digest = blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class _Template:
    """A text with columns in it: its pieces, each with the column that follows it, if one does."""

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "_Template":
        """The template; "{name}" is a column, "{{" and "}}" are braces."""
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(
                f"the template is wrong: {error}; braces of the text are written {{{{ and }}}}"
            ) from None
        for _, name, spec, conversion in pieces:
            if name is not None and (not name or spec or conversion or set(name) & set(".[]")):
                field = (
                    f"{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}"
                )
                raise ConfigError(
                    "between the braces of a template stands the name of a column and nothing "
                    f"else, not {{{field}}}"
                )
        template = cls(tuple((before, name) for before, name, _, _ in pieces))
        if not template.columns:
            raise ConfigError("the template names no column, such as {problem}")
        return template

    @property
    def columns(self) -> list[str]:
        return [name for _, name in self.parts if name is not None]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text for one row."""
        return "".join(
            before + ("" if name is None else _cell(name, values[name]))
            for before, name in self.parts
        )


def _cell(name: str, value: Any) -> str:
    value = plain(value)  # of numpy and pandas too, whose nulls are of many kinds
    if value is None:
        raise ConfigError(f"column {name!r} is null; the template needs a text or a number")
    if isinstance(value, bool) or not isinstance(value, str | Number):
        raise ConfigError(
            f"column {name!r} is {type(value).__name__}; the template needs a text or a number"
        )
    return str(value)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a row becomes a prompt."""

    prompt_column: str
    id_column: str | None
    system_column: str | None
    template: _Template | None
    system: str | None
    drop_last_assistant: bool

    def check(self, part: Part) -> None:
        """Refuses a table that lacks a column."""
        if part.columns is not None:
            try:
                self._check_columns(part.columns, "the table")
            except ConfigError as error:
                raise fault(part.name, str(error)) from None

    def _check_columns(self, known: Collection[str], holder: str) -> None:
        asked = [self._asked(known)] if self.template is None else self.template.columns
        for column in (*asked, self.id_column, self.system_column):
            if column is not None and column not in known:
                names = ", ".join(map(repr, known))
                raise ConfigError(f"no column {column!r}; {holder} has {names or 'none'}")

    def _asked(self, known: Collection[str]) -> str:
        """The column that the prompt is in."""
        names = USUAL_COLUMNS if self.prompt_column == "prompt" else ()
        return next((name for name in names if name in known), self.prompt_column)

    def prompt(self, row: Row) -> Prompt | ConfigError:
        """The prompt of a row, or what is wrong with it."""
        try:
            self._check_columns(row.values, "the row")
            return self._prompt(row.values)
        except BestOfNError as error:
            return fault(row.where, str(error))
        except RecursionError:
            return fault(row.where, "it is nested too deeply")

    def _prompt(self, values: Mapping[str, Any]) -> Prompt:
        if self.template is None:
            column = self._asked(values)
            label, value = f"column {column!r}", values[column]
        else:
            column = None
            label, value = "the template", self.template.fill(values)
        if isinstance(value, Prompt):
            others, known = value.columns, value.id
        else:
            others = {name: item for name, item in values.items() if name != column}
            known = ""
        taken = (self.id_column, self.system_column)
        columns = plain({name: item for name, item in others.items() if name not in taken})
        name = self._id(values) or known
        system = self._system(values, column)
        try:
            messages = self._asking(conversation(value), columns)
            prompt = as_prompt(messages, name, columns)
        except BestOfNError as error:
            raise ConfigError(f"{label}: {error}") from None
        if system is None or system_message(prompt) is not None:
            return prompt
        return as_prompt((Message("system", system), *messages), name, columns)

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
            raise ConfigError(
                f"the row has a column {DROPPED!r}, which the dropped answer needs; rename it"
            )
        columns[DROPPED] = clean(messages[-1].content)
        return messages[:-1]

    def _id(self, values: Mapping[str, Any]) -> str | None:
        if self.id_column is None:
            return None
        value = values[self.id_column]
        if isinstance(value, bool) or not isinstance(value, str | Integral):
            kind = "null" if value is None else type(value).__name__
            raise ConfigError(
                f"column {self.id_column!r}: an id is a text or an integer, not {kind}"
            )
        if value == "":
            raise ConfigError(f"column {self.id_column!r}: the id is empty")
        return str(value)

    def _system(self, values: Mapping[str, Any], column: str | None) -> str | None:
        # ShareGPT has a system prompt beside the conversation.
        usual = "system" if column in SHAREGPT_COLUMNS and "system" in values else None
        holder = self.system_column or usual
        value = None if holder is None else values[holder]
        if value is not None and not isinstance(value, str):
            kind = type(value).__name__
            raise ConfigError(f"column {holder!r}: a system prompt is text, not {kind}")
        return value if value and value.strip() else self.system
