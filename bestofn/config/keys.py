"""Who may ask a server: keys, each with limits."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from bestofn.errors import ConfigError
from bestofn.section import Section, checked


class Limits(Section):
    """What one request, and all those with one key, may ask for."""

    max_n: int = Field(default=64, ge=1)
    """The most candidates that a request may have drawn."""
    max_answer_tokens: int = Field(default=4096, ge=1)
    """The most tokens that a request may allow a candidate."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """The longest prompt, by default what the model's context holds."""
    max_body: int = Field(default=1 << 20, ge=1)
    """The most bytes of a request."""
    max_requests: int = Field(default=512, ge=1)
    """The most requests under way or waiting with one key, or of all where there are no keys."""


class KeyConfig(Section):
    """One who is let in; limits that are not given are the server's."""

    key: str = Field(min_length=8, pattern=r"^[!-~]+$")
    """The secret, at least 8 characters of ASCII without spaces."""
    name: str = ""
    """What logs call its owner."""
    max_n: int | None = Field(default=None, ge=1)
    max_answer_tokens: int | None = Field(default=None, ge=1)
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    max_body: int | None = Field(default=None, ge=1)
    max_requests: int | None = Field(default=None, ge=1)

    def limits(self, of_server: Limits) -> Limits:
        """The limits that hold for it."""
        names = Limits.model_fields
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return Limits(**{name: getattr(of_server, name) for name in names} | own)


def read_keys(path: str) -> list[KeyConfig]:
    """The keys in a file.

    Raises:
        ConfigError: it cannot be read, is of another form, or has no keys or one of them twice.
    """
    try:
        text = Path(path).read_text("utf-8").strip()
        found: Any = yaml.safe_load(text) if text[:1] in ("-", "[", "{") else text.split()
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"the key file {path!r} cannot be read: {reason}") from None
    if not isinstance(found, list) or not found:
        raise ConfigError(f"the key file {path!r} needs a key in each line, or a YAML list")
    keys = []
    for place, item in enumerate(found, 1):
        fields = item if isinstance(item, dict) else {"key": item}
        key = checked(KeyConfig, fields, f"key {place} of {path!r}")
        keys.append(key.model_copy(update={"name": key.name or f"key {place}"}))
    if len({key.key for key in keys}) < len(keys):
        raise ConfigError(f"the key file {path!r} has a key twice")
    return keys


class Client:
    """One who is let in, with the requests of theirs that are not answered yet."""

    def __init__(self, name: str, limits: Limits, key: str = "") -> None:
        self.name, self.limits, self.open = name, limits, 0
        self.digest = sha256(key.encode()).digest()


class Clients:
    """Those who are let in, by their keys; without keys everyone is, as one client."""

    def __init__(self, keys: Sequence[KeyConfig], limits: Limits) -> None:
        self.anyone = Client("", limits)
        self.known = [Client(key.name, key.limits(limits), key.key) for key in keys]

    def with_key(self, key: bytes) -> Client | None:
        """The client with this key; all are compared, each in constant time."""
        digest = sha256(key).digest()
        found = [client for client in self.known if hmac.compare_digest(client.digest, digest)]
        return found[0] if found else None
