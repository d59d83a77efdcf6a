"""Whether a rerun of a command has the settings that its output was begun with.

Settings are compared by what they mean: a field that the output's version did not have is at its
default, a path or URL has one spelling, and arguments that change no result do not count.
"""

from collections.abc import Collection, Mapping
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

    def compare(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
        left_out = described if "identity" in begun else ()
        before, now = (
            {name: value for name, value in meaning(kind, settings).items() if name not in left_out}
            for settings in (begun, wanted)
        )
        return by_identity(moved(before, now), now)

    return compare


def same_spelled(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Compares settings that are no fields of a section."""
    before, now = with_one_spelling(begun), with_one_spelling(wanted)
    return by_identity(moved(before, now), now)


def meaning(kind: type[Section], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with defaults for what is missing, in one spelling."""
    known = {name: value for name, value in settings.items() if name in kind.model_fields}
    try:
        whole = dict(settings) | kind.model_validate(known).model_dump(mode="json")
    except ValidationError:  # a later version may refuse what was fine
        whole = _defaults(kind) | dict(settings)
    return dict(with_one_spelling(whole))


def _defaults(kind: type[Section]) -> dict[str, Any]:
    fields = {name: field for name, field in kind.model_fields.items() if not field.is_required()}
    return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}


def with_one_spelling(value: Any) -> Any:
    """Settings, at any depth, with their engines and paths as they are always written."""
    if isinstance(value, list):
        return [with_one_spelling(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    plain = {name: with_one_spelling(item) for name, item in value.items()}
    for prefix in ("", "reward_"):
        if isinstance(spec := plain.get(f"{prefix}engine"), str):
            plain[f"{prefix}engine"] = same_engine(spec)
        for name in (f"{prefix}engine_args", f"{prefix}engine_options"):
            if isinstance(args := plain.get(name), Mapping):
                plain[name] = mattering(args)
    return plain | {name: input_of(plain[name]) for name in PLACES if name in plain}


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
