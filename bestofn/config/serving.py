"""The configuration of the server, and of those who may ask it."""

from ipaddress import ip_address

from pydantic import Field, model_validator

from bestofn.config.commands import AskConfig
from bestofn.config.keys import Limits
from bestofn.config.parts import NamedRewards
from bestofn.rewards.base import reads_confidence


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
    also: NamedRewards = Field(default=[])
    """Further rewards that a request may name, such as flip,majority."""
    max_running: int = Field(default=64, ge=1)
    """Requests that are worked on at once; others wait."""
    max_waiting: int = Field(default=512, ge=0)
    """Requests that may wait; more are told to come again, with status 429."""
    max_connections: int = Field(default=2048, ge=1)
    """Connections at once; more get status 503."""
    drain_seconds: int = Field(default=60, ge=0)
    """How long requests under way may take after SIGTERM."""
    log_prompts: bool = False
    """Write the text of prompts into the log, which is else without any."""

    @model_validator(mode="after")
    def _have_confidence(self) -> "ServeConfig":
        for reward in self.also if self.confidence is None else ():
            if reads_confidence(reward.reward):
                raise ValueError(f"{reward.reward!r} needs --confidence, such as 20")
        return self

    @model_validator(mode="after")
    def _needs_keys(self) -> "ServeConfig":
        if self.api_key_file is None and not is_loopback(self.host):
            raise ValueError(
                f"anyone who reaches {self.host} could use the model; name the keys that are let "
                "in (--api-key-file), or listen on 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
