"""Options of commands, made from the configuration's fields."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo

from bestofn.cli.app import Debug, one_sentence
from bestofn.config import Flag, Section
from bestofn.errors import ConfigError

Command = Callable[..., None]

WORDS = ("on", "off", "yes", "no")
"""Which YAML 1.1 takes for true and false, and an option such as copy_guard=off for a name."""
NEWLINES = r"\n in it is a newline, \\n a backslash and an n."


def options(
    *sections: type[Section],
    only: Collection[str] = (),
    without: Collection[str] = (),
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Command], Command]:
    """Gives a command an option for each field of the sections.

    The command is called with the fields that were given, by name, so that defaults stay with the
    schema. It also gets --debug, and its errors become one sentence.

    Args:
        sections: Configuration sections; a field that stands in several is one option.
        only: The fields to take; none means all.
        without: Fields to leave out.
        defaults: What help says where the command has another default than the schema.
    """
    fields = {
        name: field
        for section in sections
        for name, field in section.model_fields.items()
        if (not only or name in only) and name not in without
    }

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]

        @wraps(command)
        def parsed(debug: bool, **values: Any) -> None:
            with one_sentence(debug):
                given = {name: values.pop(name) for name in fields}
                command(
                    **values,
                    **{
                        name: _parsed(fields[name], value)
                        for name, value in given.items()
                        if value is not None and value != []
                    },
                )

        made = [
            _parameter(name, field, defaults.get(name, _default(field)))
            for name, field in fields.items()
        ]
        debug = inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
        )
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *made, debug)]
        parsed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {p.name: p.annotation for p in parameters}
        return parsed

    return decorate


def _parameter(name: str, field: FieldInfo, default: str) -> inspect.Parameter:
    """An option is None, or an empty list, unless it is given; help shows the default."""
    flags = next((mark.names for mark in field.metadata if isinstance(mark, Flag)), ())
    kind = _kind(field)
    if kind is bool:
        dashed = name.replace("_", "-")
        flags = flags or (f"--{dashed}/--no-{dashed}",)
    option = typer.Option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        help=" ".join(f"{field.description or ''} {_escapes(field)} {default}".split()),
        show_default=False,
    )
    repeated = kind in (list, dict)
    hint = list[str] if repeated else kind
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[hint | None, option],
    )


def _escapes(field: FieldInfo) -> str:
    return NEWLINES if _marked(field, "text") else ""


def _kind(field: FieldInfo) -> Any:
    """The type on the command line: text, a number, a switch, a list or a mapping."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not type(None)]
    origin = get_origin(annotation) or annotation
    return origin if origin in (str, int, float, bool, list, dict) else str


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default in (None, "", [], {}):
        return ""
    return f"Default: {field.default}."


def _parsed(field: FieldInfo, value: Any) -> Any:
    kind = _kind(field)
    if kind is dict:
        return dict(named(item, dotted=_marked(field, "dotted")) for item in value)
    if kind is list:
        if not _marked(field, "whole"):
            return [part for item in value for part in item.split(",") if part]
        return [unescaped(item) for item in value] if _marked(field, "text") else value
    return unescaped(value) if _marked(field, "text") else value


def _marked(field: FieldInfo, mark: str) -> bool:
    return any(isinstance(flag, Flag) and getattr(flag, mark) for flag in field.metadata)


def unescaped(text: str) -> str:
    """The text with newlines for `\\n`; `\\\\n` is a backslash and an n.

    Other backslashes stay as they are: prompts have LaTeX in them.
    """
    return re.sub(r"\\(\\?)n", lambda match: r"\n" if match[1] else "\n", text)


def named(argument: str, *, dotted: bool = False) -> tuple[str, Any]:
    """NAME=VALUE, the value as YAML reads it: a number, true or false, a list, or text.

    With `dotted` the name may be one of something else, as in REWARD.NAME=VALUE.

    Raises:
        ConfigError: it has another form.
    """
    name, equals, value = argument.partition("=")
    if not equals or not (name.rpartition(".")[2] if dotted else name).isidentifier():
        word = re.match(r"\w*", argument)[0]  # type: ignore[index]  # it matches anything
        shown = word + ("..." if word != argument else "")  # what follows may be a key
        raise ConfigError(f"this option takes NAME=VALUE, not {shown!r}")
    if value.lower() in WORDS:
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        return name, value
