"""Prompts that are put together from columns, such as "Solve: {problem}"."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from string import Formatter
from typing import Any

from bestofn.errors import ConfigError
from bestofn.prompts import plain


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in it.

    Attributes:
        parts: Pieces of text, each with the column that follows it, if one does.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """The template; "{name}" is a column, "{{" and "}}" are braces.

        Raises:
            ConfigError: its braces do not match, it has no column, or one is not a plain name.
        """
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(
                f"the template is wrong: {error}; braces of the text are written {{{{ and }}}}"
            ) from None
        for _, name, spec, conversion in pieces:
            if name is not None and (not name or spec or conversion or set(name) & set(".[]")):
                raise ConfigError(
                    "between the braces of a template stands the name of a column and nothing "
                    f"else, not {_field(name, spec, conversion)}"
                )
        template = cls(tuple((before, name) for before, name, _, _ in pieces))
        if not template.columns:
            raise ConfigError("the template names no column, such as {problem}")
        return template

    @property
    def columns(self) -> list[str]:
        """The columns that it needs."""
        return [name for _, name in self.parts if name is not None]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text for one row.

        Raises:
            ConfigError: a column is null, or neither text nor a number.
        """
        return "".join(
            before + ("" if name is None else _text(name, values[name]))
            for before, name in self.parts
        )


def _field(name: str, spec: str | None, conversion: str | None) -> str:
    return f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"


def _text(name: str, value: Any) -> str:
    value = plain(value)  # of numpy and pandas too, whose nulls are of many kinds
    if value is None:
        raise ConfigError(f"column {name!r} is null; the template needs a text or a number")
    if isinstance(value, bool) or not isinstance(value, str | Number):
        raise ConfigError(
            f"column {name!r} is {type(value).__name__}; the template needs a text or a number"
        )
    return str(value)
