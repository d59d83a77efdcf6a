"""The configuration of the server, and of those who may ask it."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from bestofn.config.commands import AskConfig
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


class ServeConfig(AskConfig, Limits):
    """A server that answers each request with the best of N."""

    host: str = "127.0.0.1"
    """The address to listen on; any other than this machine's own needs --api-key-file."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port; 0 takes a free one."""
    api_key_file: str | None = None
    """A file of the keys that are let in: one in a line, or a YAML list of mappings with key, name
    and limits of their own such as max_n."""
    model_name: str | None = None
    """What requests call the model, by default the last part of its name."""
    also: list[str] = Field(default=[])
    """Further rewards that a request may name, such as flip,majority."""
    max_running: int = Field(default=64, ge=1)
    """Requests that are worked on at once; others wait."""
    max_waiting: int = Field(default=512, ge=0)
    """Requests that may wait; more are told to come again, with status 429."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at once; more get status 503."""
    drain_seconds: int = Field(default=60, ge=0)
    """How long requests under way may take when the server is told to end."""
    log_prompts: bool = False
    """Write the text of prompts into the log, which is else without any."""

    @model_validator(mode="after")
    def _needs_keys(self) -> "ServeConfig":
        if self.api_key_file is None and not is_loopback(self.host):
            raise ValueError(
                f"anyone who reaches {self.host} could use the model; name the keys that are let "
                "in (--api-key-file), or listen on 127.0.0.1"
            )
        return self


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_keys(path: str) -> list[KeyConfig]:
    """The keys in a file.

    Raises:
        ConfigError: it cannot be read, is of another form, or has no keys or one of them twice.
    """
    try:
        found: Any = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"the key file {path!r} cannot be read: {reason}") from None
    if isinstance(found, str):  # lines
        found = found.split()
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
