"""Values as rows and files can hold them."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import isfinite
from typing import Any

from bestofn.errors import ConfigError

DEEPEST = 100  # levels of lists and mappings in a column
LONGEST = 14_000  # bits of an integer; Python's JSON reads no more than 4300 digits
MISSING = ("NAType", "NaTType")  # what pandas has for null
ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def clean(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, as cut emoji leave behind.

    No file can hold such a half. Two that follow each other are one character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain(value: Any, depth: int = 0) -> Any:
    """A column's value as a row can hold it, and the same for the same value in every process.

    NaN and infinities are null, arrays and sets lists, scalars of numpy numbers, and what JSON has
    no form for is its text.

    Raises:
        ConfigError: it is nested too deeply, or an integer is too long.
    """
    if depth > DEEPEST:
        raise ConfigError(f"a column is nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int):
        return _checked(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(name)): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, AbstractSet):
        return sorted((plain(item, depth + 1) for item in value), key=repr)
    if callable(getattr(value, "tolist", None)):
        return plain(_listed(value), depth + 1)
    if type(value).__name__ in MISSING:
        return None
    # An object without a text of its own shows where in memory it is.
    return clean(ADDRESS.sub("", str(value)))


def _checked(value: int) -> int:
    if value.bit_length() > LONGEST:
        raise ConfigError("a column has an integer of more than 4,000 digits")
    return value


def _listed(array: Any) -> Any:
    """A number, or nested lists, of an array, a scalar or a tensor; dates become their text."""
    is_time = getattr(getattr(array, "dtype", None), "kind", None) in ("m", "M")
    return (array.astype(str) if is_time else array).tolist()
