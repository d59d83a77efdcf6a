"""JSON schemas: whether one is usable, and whether a value fits."""

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from bestofn.errors import ConfigError
from bestofn.prompts import plain

SIZE, DEPTH, REFERENCES = 10_000, 20, 128  # of schemas that strangers send
ENDLESS = ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef", "$id")


def check_schema(
    schema: Any, what: str, field: str | None = None, *, bounded: bool = False
) -> None:
    """Refuses what is no JSON schema, refers to another document or, `bounded`, takes too long."""
    if isinstance(schema, Mapping) and bounded:
        _check_bounds(schema, field)
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{what}: this is no JSON schema, which is an object", field)
    try:
        _validator(json.dumps(plain(schema), sort_keys=True))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise ConfigError(f"{what}: this is no JSON schema: {_sentence(error)}", field) from None


def _check_bounds(schema: Mapping[str, Any], field: str | None) -> None:
    """Refuses a schema that would take long to read or to check.

    With its references followed, as deep as `DEPTH`, it may have `SIZE` parts.
    """
    text = json.dumps({name: part for name, part in schema.items() if name != "$id"})
    whole = _parts(schema)
    targets = {pointer: _at(schema, pointer) for pointer in whole if pointer}
    # What is not found may be in another document, or in a part that has a name of its own.
    if any(f'"{keyword}"' in text for keyword in ENDLESS) or None in targets.values():
        unusable = ", ".join(ENDLESS)
        raise ConfigError(f"a JSON schema has no {unusable} and no other document here", field)
    if whole.total() > SIZE or len(whole) > REFERENCES:
        raise ConfigError(f"a JSON schema has {SIZE} parts at most here", field)
    parts = {pointer: _parts(target) for pointer, target in targets.items()}
    sizes = dict.fromkeys(parts, 1)
    for _ in range(DEPTH):
        sizes = {
            pointer: sum(count * sizes.get(other, 1) for other, count in own.items())
            for pointer, own in parts.items()
        }
        if max(sizes.values(), default=0) > SIZE:
            raise ConfigError("a JSON schema refers to itself too often for one here", field)


def _parts(schema: Any) -> Counter[str]:
    """How many parts a schema has: references by what they point at, others as ""."""
    found, waiting = Counter[str](), [schema]
    while waiting:
        part = waiting.pop()
        pointer = part.get("$ref") if isinstance(part, Mapping) else None
        found[pointer if isinstance(pointer, str) else ""] += 1
        waiting += (
            part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
        )
    return found


def _at(schema: Any, pointer: str) -> Any:
    """The part of a schema that a pointer such as "#/$defs/x" names, else None."""
    if not pointer.startswith("#"):
        return None
    for part in unquote(pointer[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, Mapping):
            schema = schema.get(name)
        elif isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return None
    return schema


def check_json(text: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a text that is to be JSON by a schema, None if nothing is."""
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON: {getattr(error, 'msg', error)}"
    wrong = violation(schema, value)
    return wrong and f"it does not fit the schema: {wrong}"


def refuse(constant: str) -> None:
    """Refuses NaN and infinities, which Python's parser takes for numbers."""
    raise ValueError(f"{constant} is no number of JSON")


def violation(schema: Mapping[str, Any], value: Any) -> str | None:
    """What in a value does not fit a schema, None if it fits."""
    try:
        _validator(json.dumps(plain(schema), sort_keys=True)).validate(value)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        return _sentence(error)
    return None


@lru_cache(maxsize=32)
def _validator(schema: str) -> Any:
    # A pattern that backtracks without end fails, and no other document is fetched.
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
    return jsonschema_rs.validator_for(json.loads(schema), pattern_options=patterns, offline=True)


def _sentence(error: Exception) -> str:
    said = getattr(error, "message", None) or str(error)
    place = "".join(f"[{part!r}]" for part in getattr(error, "instance_path", ()))
    first = said.splitlines()[0][:200].rstrip(".")
    return f"{first} (at {place})" if place else first
