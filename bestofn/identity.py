"""What results depend on: as data that a file can keep, and what differs between two of them.

Engines, rewards, verifiers and stop rules have a method `identity()`: a dictionary, fit for JSON,
of what their results depend on and of nothing else: no timeouts, no memory, no secrets. A key that
a later version adds is left out while it has its default, so that files begun before still resume,
unless that default gives other results.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from bestofn.errors import ConfigError

UNKNOWN = "unknown"
"""In an identity, what could not be told yet, such as a model that is not downloaded."""
CONTENT = "content:"  # marks a fingerprint

WHOLE = 1 << 30  # bytes; what is larger is read in blocks
BLOCK, BLOCKS = 1 << 20, 64
SETTLED = 5.0  # seconds


def identity_of(thing: object) -> dict[str, Any]:
    """What results depend on: the thing's own `identity()`, else what it is called."""
    own = getattr(thing, "identity", None)
    if callable(own) and not isinstance(thing, type):
        return dict(own())
    if isinstance(thing, partial):
        return identity_of(thing.func) | {"arguments": as_json([thing.args, thing.keywords])}
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module = getattr(named, "__module__", None)  # a method such as str.strip has none
    found = {"kind": f"{module}.{named.__qualname__}" if module else named.__qualname__}
    if getattr(thing, "__name__", None) == "<lambda>":
        code = thing.__code__  # type: ignore[attr-defined]
        found["code"] = fingerprint(f"{code.co_code.hex()} {code.co_consts!r} {code.co_names!r}")
    name = getattr(thing, "name", None)
    return found | ({"name": name} if isinstance(name, str) else {})


def as_json(value: Any) -> Any:
    """Settings as JSON reads them back; what it does not know is put down by its text or name."""
    return json.loads(json.dumps(value, default=_named))


def _named(value: object) -> str:
    text = str(value)
    # A name with an address is another one in each run.
    return str(identity_of(value)["kind"]) if " at 0x" in text else text


def fingerprint(content: str | bytes) -> str:
    """A hash of some content."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return CONTENT + hashlib.blake2b(data, digest_size=8).hexdigest()


def content_fingerprint(path: Path) -> str:
    """A hash of the whole content of a pool file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    except OSError as error:
        raise ConfigError(f"the pool {path} cannot be read: {error.strerror}") from None


def files_fingerprint(files: Iterable[Path]) -> str:
    """A hash of the names, sizes and content of files.

    They are read whole up to 1 GiB in all, and above that the large ones in evenly spaced blocks.

    Raises:
        OSError: one cannot be read.
    """
    found = sorted((path.name, str(path), path.stat()) for path in files)
    parts = tuple((name, path, at.st_size, at.st_ino, at.st_ctime_ns) for name, path, at in found)
    # A file that has just been written may change again without another time of change.
    settled = all(time.time() - at.st_ctime > SETTLED for *_, at in found)
    return _hash_of(parts) if settled else _hash_of.__wrapped__(parts)


@lru_cache(maxsize=64)
def _hash_of(parts: tuple[tuple[str, str, int, int, int], ...]) -> str:
    whole = sum(size for _, _, size, *_ in parts) <= WHOLE
    digest = hashlib.blake2b(digest_size=8)
    for name, path, size, *_ in parts:
        digest.update(f"{name}\x00{size}\x00".encode("utf-8", "surrogateescape"))
        with Path(path).open("rb") as file:
            if whole or size <= BLOCK * BLOCKS:
                while block := file.read(BLOCK):
                    digest.update(block)
                continue
            for place in range(BLOCKS):
                file.seek((size - BLOCK) * place // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return CONTENT + digest.hexdigest()


def place_of(path: str) -> str:
    """One spelling of the path of a file or folder; what is not there is left as it is."""
    try:
        place = Path(path).expanduser()
        return str(place.resolve()) if place.exists() else path
    except (OSError, ValueError, RuntimeError):
        return path


Compare = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]
"""Says what differs between the settings that a file was begun with and those of a rerun."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """A short phrase for each value that differs, such as "reward.samples was 1 and is 4".

    A key that is missing is null; what is unknown differs from nothing.
    """
    found = []
    for key in dict.fromkeys((*before, *now)):
        name = f"{within}{key}"
        old, new = before.get(key), now.get(key)
        if old == new or UNKNOWN in (old, new):
            continue
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            found.append(_phrase(name, old, new))
        elif (kind := old.get("kind")) != new.get("kind"):
            found.append(_phrase(name, kind, new.get("kind")))
        else:
            found += differences(old, new, f"{name}.")
    return found


def _phrase(name: str, old: object, new: object) -> str:
    if str(old).startswith(CONTENT) and str(new).startswith(CONTENT):
        return f"{name} has other content"
    return f"{name} was {_shown(old)} and is {_shown(new)}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping) and "kind" in value:
        value = value["kind"]
    return json.dumps(value, ensure_ascii=False)


def by_identity(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The differences between settings, some of which an identity describes better by their name.

    A file of version 0.1 has no identity: what it recorded is compared.
    """
    known = isinstance(begun.get("identity"), Mapping)

    def merged(settings: Mapping[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in settings.items() if name != "identity"}
        return plain | (dict(settings.get("identity") or {}) if known else {})

    return differences(merged(begun), merged(wanted))


def completed(before: Any, now: Any) -> Any:
    """What was kept, with what it lacks or did not know."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        kept = {key: completed(old, now.get(key, old)) for key, old in before.items()}
        return kept | {key: new for key, new in now.items() if key not in before}
    return now if before == UNKNOWN else before
