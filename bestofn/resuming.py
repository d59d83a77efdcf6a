"""Whether a rerun of a command has the settings that its output was begun with.

Settings are compared by what they mean: a field that the output's version did not have is at its
default, a path or URL has one spelling, and arguments that change no result do not count.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bestofn.config import EngineConfig, Section
from bestofn.engines.base import Engine
from bestofn.engines.identity import PATHS, mattering, same_engine
from bestofn.identity import UNKNOWN, Compare, by_identity, identity_of, place_of

PLACES = ("prompts", "data")  # settings that may name a file
FILES = ("weights", *PATHS)  # of an engine's identity, what its configuration does not show


def comparing(kind: type[Section], described: Collection[str] = ()) -> Compare:
    """Compares settings that are fields of a section.

    Args:
        kind: The section.
        described: Fields that the settings' identity says more of, where both have one.
    """

    def meaning(settings: Mapping[str, Any], left_out: Collection[str]) -> dict[str, Any]:
        known = {name: value for name, value in settings.items() if name in kind.model_fields}
        whole = dict(settings)
        with suppress(ValidationError):  # a later version may refuse what was fine
            whole |= kind.model_validate(known).model_dump(mode="json")
        return {name: value for name, value in whole.items() if name not in left_out}

    def compare(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
        left_out = described if "identity" in begun else ()
        return same_spelled(meaning(begun, left_out), meaning(wanted, left_out))

    return compare


def same_spelled(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between settings in one spelling, a file being the same where it was moved."""
    before, now = with_one_spelling(begun), with_one_spelling(wanted)
    return by_identity(moved(before, now), now)


def with_one_spelling(value: Any) -> Any:
    """Settings, at any depth, with their engines and paths as they are always written."""
    if isinstance(value, list):
        return [with_one_spelling(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    plain = {name: with_one_spelling(item) for name, item in value.items()}
    for name, item in plain.items():
        if name in PLACES:
            plain[name] = input_of(item)
        elif name.removeprefix("reward_") == "engine" and isinstance(item, str):
            plain[name] = same_engine(item)
        elif name.removeprefix("reward_") in ("engine_args", "engine_options"):
            plain[name] = mattering(item) if isinstance(item, Mapping) else item or {}
    return plain


def input_of(source: Any) -> Any:
    """One spelling of where prompts come from; what names no file is left as it is."""
    return place_of(source) if isinstance(source, str) and source != "-" else source


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What was before, with the present place of a file that has been moved since."""
    found = dict(before)
    for name in PLACES:
        old, new = before.get(name), now.get(name)
        if isinstance(old, str) and isinstance(new, str) and not Path(old).exists():
            same = Path(old).name == Path(new).name and Path(new).is_file()
            found[name] = new if same else old
    return found


def engine_files(
    config: EngineConfig, loaded: Engine | None = None, prefix: str = ""
) -> dict[str, Any]:
    """What an engine's results depend on and its configuration does not show.

    Args:
        config: Of the engine.
        loaded: The engine, which knows more than its configuration.
        prefix: Of the names.
    """
    described = config.described().identity()
    found = described if loaded is None else described | identity_of(loaded)
    files = {f"{prefix}{name}": found[name] for name in FILES if name in found}
    # Of a server whose model is not named; "model" is what scores are made with.
    unnamed = {f"{prefix}served_model": found["model"]} if described["model"] == UNKNOWN else {}
    return files | unnamed
