"""What all commands share: the application, options made from fields, errors, tables."""

import inspect
import json
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import bestofn
from bestofn.errors import BestOfNError, ConfigError, RunFailedError
from bestofn.section import OPTIONS, Flag, S, Section, checked

T = TypeVar("T")
Command = Callable[..., None]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Best-of-N sampling: draw N candidates, score each, return the best.",
)
# Only results go to stdout, so that --json can be piped.
console = Console(emoji=False)
notes = Console(stderr=True, emoji=False)

Output = Annotated[Path, typer.Option("-o", "--output", help="The file or folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

NEWLINES = r"\n in it is a newline, \\n a backslash and an n."


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bestofn {bestofn.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def one_sentence(debug: bool) -> Iterator[None]:
    """Turns the package's errors into one sentence and an exit code.

    1: the command ran, but too much of it failed. 2: what was asked for cannot be done. 130: an
    interrupt.
    """
    try:
        yield
    except BestOfNError as error:
        if debug:
            traceback.print_exc()
        else:
            notes.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1 if isinstance(error, RunFailedError) else 2) from None
    except KeyboardInterrupt as interrupt:
        kept = getattr(interrupt, "__notes__", [])
        notes.print(escape("; ".join(["interrupted", *kept])), soft_wrap=True)
        raise typer.Exit(130) from None


def show(result: T, as_json: bool, view: Callable[[T], None]) -> None:
    """The result as one JSON object, or as people read it."""
    if as_json:
        print(json.dumps(result))
    else:
        view(result)


# --- options --------------------------------------------------------------------------------------


def section(kind: type[S], given: Mapping[str, Any], **more: Any) -> S:
    """The section of some of a command's options.

    Raises:
        ConfigError: a value is wrong, or one is missing.
    """
    own = {name: value for name, value in given.items() if name in kind.model_fields}
    return checked(kind, own | more, OPTIONS)


def options(
    *sections: type[Section],
    without: Collection[str] = (),
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Command], Command]:
    """Gives a command an option for each field of the sections.

    The command is called with the fields that were given, by name, so that defaults stay with the
    schema. It also gets --debug, and its errors become one sentence.

    Args:
        sections: Configuration sections; a field of several is one option.
        without: Fields to leave out.
        defaults: What help says where the command has another default than the schema.
    """
    fields = {
        name: field
        for section in sections
        for name, field in section.model_fields.items()
        if name not in without
    }

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        made = [_option(name, field, defaults) for name, field in fields.items()]

        @wraps(command)
        def parsed(debug: bool, **values: Any) -> None:
            with one_sentence(debug):
                given = {
                    name: _parsed(fields[name], value)
                    for name in fields
                    if (value := values.pop(name)) not in (None, [])
                }
                command(**values, **given)

        own = [_keyword(p.name, p.default, p.annotation) for p in own]
        parameters = [*own, *made, _keyword("debug", False, Debug)]
        parsed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {p.name: p.annotation for p in parameters}
        return parsed

    return decorate


def _option(name: str, field: FieldInfo, defaults: Mapping[str, str]) -> inspect.Parameter:
    """An option is None, or an empty list, unless it is given; help shows the default."""
    kind, mark, flag = _kind(field), _mark(field), f"--{name.replace('_', '-')}"
    plain = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
    unset = field.is_required() or field.default in (None, "", [], {})
    default = defaults.get(name, "" if unset else f"Default: {field.default}.")
    said = [field.description or "", NEWLINES if mark.text else "", default]
    option = typer.Option(
        *(mark.names or (plain,)), help=" ".join(" ".join(said).split()), show_default=False
    )
    hint = list[str] if kind in (list, dict) else kind
    return _keyword(name, None, Annotated[hint | None, option])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def _kind(field: FieldInfo) -> Any:
    """The type on the command line: text, a number, a switch, a list or a mapping."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not type(None)]
    origin = get_origin(annotation) or annotation
    return origin if origin in (str, int, float, bool, list, dict) else str


def _mark(field: FieldInfo) -> Flag:
    return next((mark for mark in field.metadata if isinstance(mark, Flag)), Flag())


def _parsed(field: FieldInfo, value: Any) -> Any:
    kind, mark = _kind(field), _mark(field)
    if kind is dict:
        return dict(map(named, value))
    if mark.text:
        return unescaped(value) if kind is str else [*map(unescaped, value)]
    return [part for item in value for part in item.split(",") if part] if kind is list else value


def unescaped(text: str) -> str:
    """The text with newlines for `\\n`; `\\\\n` is a backslash and an n.

    Other backslashes stay as they are: prompts have LaTeX in them.
    """
    return re.sub(r"\\(\\?)n", lambda match: r"\n" if match[1] else "\n", text)


def named(argument: str) -> tuple[str, Any]:
    """NAME=VALUE or REWARD.NAME=VALUE, the value as YAML reads it: a number, a list, or text.

    Raises:
        ConfigError: it has another form.
    """
    name, equals, value = argument.partition("=")
    if not equals or not name.rpartition(".")[2].isidentifier():
        # What was given may be a key, so it is not repeated.
        raise ConfigError("this option takes NAME=VALUE, as in samples=4")
    if value.lower() in ("on", "off", "yes", "no"):  # true or false in YAML 1.1, a name here
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value


# --- tables, in which no number is ever cut, however narrow the terminal is -----------------------

Cell = str | Text
Column = tuple[str, Sequence[Cell]]
"""A heading, and a number for each row."""

GAP = 1  # columns between two of a table
HEADING = 15  # how wide a heading may make a column before it folds
NAME = 20  # columns that the names of rows keep where there is room for a number beside them


def show_table(title: str, corner: str, names: Sequence[Cell], columns: Sequence[Column]) -> None:
    """Prints a row for each name; names fold where they are long.

    Columns that do not fit beside the names go into another table below; `corner` heads the names.
    """
    longest = _width(corner, *names)
    widest = max(_taken([column]) for column in columns)
    least = max(1, min(longest, NAME, console.width - widest))
    blocks: list[list[Column]] = [[]]
    for column in columns:
        if blocks[-1] and _taken([*blocks[-1], column]) > console.width - least:
            blocks.append([])
        blocks[-1].append(column)
    for number, block in enumerate(blocks):
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        width = max(min(longest, console.width - _taken(block)), least)
        table.add_column(corner, width=width, overflow="fold")
        for column in block:
            above = Text(column[0], justify="right", overflow="fold")
            table.add_column(above, width=_taken([column]) - GAP, justify="right")
        for row, name in enumerate(names):
            table.add_row(*(Text() + cell for cell in (name, *(cells[row] for _, cells in block))))
        console.print(Text(title if not number else f"{title} (continued)", "italic"))
        console.print(table)


def show_summary(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        console.print(Text(f"- {sentence}"))


def _taken(columns: Sequence[Column]) -> int:
    return sum(
        max(_width(*cells), min(_width(heading), HEADING)) + GAP for heading, cells in columns
    )


def _width(*cells: Cell) -> int:
    return max(Text(line).cell_len for cell in cells for line in str(cell).split("\n"))
