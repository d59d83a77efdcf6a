"""Making an object of a class that a user names, with arguments that a user gives."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

from bestofn.errors import ConfigError
from bestofn.redaction import is_secret

T = TypeVar("T")
PLAIN = (str, int, float, bool, type(None))


def construct(
    what: str, kind: Callable[..., T], arguments: Sequence[Any], options: Mapping[str, Any]
) -> T:
    """`kind(*arguments, **options)`; an error inside it stays what it is.

    Args:
        what: The object's name in messages.
        kind: Its class.
        arguments: By position; the caller's own.
        options: By name; the user's.

    Raises:
        ConfigError: there is no such argument, one is missing, or a plain value is of a type
            that it cannot have.
    """
    try:
        bound = inspect.signature(kind).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{what} does not take these arguments: {error}") from None
    hints = get_type_hints(getattr(kind, "__init__"))  # noqa: B009
    for name, value in bound.arguments.items():
        # Which of a few words it is, the class says better itself.
        checked = name in options and name in hints and get_origin(hints[name]) is not Literal
        if checked and isinstance(value, PLAIN):
            _check_type(what, name, value, hints[name])
    return kind(*arguments, **options)


def _check_type(what: str, name: str, value: Any, hint: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=True)
    except ValidationError:
        wanted = inspect.formatannotation(hint)
        shown = "" if is_secret(name) else f", not {value!r}"
        raise ConfigError(f"{what}: {name} must be {wanted}{shown}") from None
