"""Which fields a server takes: learned from its refusals, once for all views of an engine."""

import copy
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import openai

from bestofn.engines.base import SamplingParams
from bestofn.engines.openai.server import said_in

Key = tuple[str, Any]
"""A field, and its value where it is the value that a server may refuse."""

# Statuses of a refusal that may be due to a single field.
NEGOTIABLE = frozenset({400, 403, 422})
# What does nothing. It is sent all the same: what a request does not say, many servers take from
# the model's generation_config.json.
NEUTRAL = {
    name: getattr(SamplingParams(), name)
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
}
# What may be left out because it asks for no other answer.
OPTIONAL = frozenset({"logprobs", "return_token_ids"})
# What may be left out with a warning.
MISSED = {
    "temperature": "answers are sampled at a temperature of the server's choice",
    "seed": "results are not reproducible",
}
SHORT = 40  # characters of a value in a message
NEEDED = frozenset({"model", "messages", "max_tokens"})
LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
# By what servers call themselves: how they name a field, how they spell a value.
NAMES = {"llamacpp": {"repetition_penalty": "repeat_penalty"}}
ALL_TOKENS = ("top_k", NEUTRAL["top_k"])
VALUES = {"sglang": {ALL_TOKENS: -1}}


class NeededError(Exception):
    """A field that matters is refused; the message is what to do about it."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What an engine changes in its requests because the server refused them as they were.

    Attributes:
        left_out: Fields, each with its value if only that is refused.
        renamed: Names that the server has for fields.
    """

    left_out: tuple[str, ...]
    renamed: Mapping[str, str]


@dataclass(slots=True)
class Fields:
    """How one server wants its requests.

    Attributes:
        left_out: Fields that it does not take.
        names: What it calls a field.
        values: How it spells a value.
    """

    left_out: set[Key] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    values: dict[Key, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, server: str | None) -> Self:
        """Those of a server that calls itself this."""
        known = server or ""
        return cls(names=dict(NAMES.get(known, {})), values=dict(VALUES.get(known, {})))

    @property
    def stats(self) -> Stats:
        left_out = [name if value is None else f"{name}={value}" for name, value in self.left_out]
        return Stats(tuple(sorted(left_out)), dict(self.names))

    def spell(self, request: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
        """The request as the server wants it; fields in `asked` are never left out."""
        sent = {}
        for name, value in request.items():
            if name not in asked:
                key = _key(name, value)
                if key in self.left_out:
                    continue
                value = self.values.get(key, value)
            sent[self.names.get(name, name)] = value
        return sent

    def amended(
        self, request: Mapping[str, Any], asked: Collection[str], refusal: openai.APIStatusError
    ) -> Self | None:
        """What may be taken where this was refused; None if the refusal names no field.

        Raises:
            NeededError: a field that matters is refused.
        """
        said = said_in(refusal.body)
        keys = [_key(name, value) for name, value in request.items()]
        sent = [key for key in keys if key[0] in asked or key not in self.left_out]
        named = [key for key in sent if refusal.param in self._spellings(key[0])]
        named = named or [key for key in sent if self._is_mentioned(key[0], said)]
        free = [key for key in named if key[0] not in asked]
        amended = copy.deepcopy(self)
        if idle := [key for key in free if key[0] in OPTIONAL or key in NEUTRAL.items()]:
            if ALL_TOKENS in idle and "-1" in said and ALL_TOKENS not in self.values:
                amended.values[ALL_TOKENS] = -1
            else:
                amended.left_out.update(idle)
        elif missed := [key for key in free if key[0] in MISSED]:
            amended.left_out.update(missed)
        elif (
            LIMIT in dict(named)
            and LIMIT not in self.names
            and "context length" not in said.lower()
        ):
            amended.names[LIMIT] = NEW_LIMIT
        elif matters := [name for name, _ in named if name not in NEEDED]:
            options = ", ".join(_shown(name, request[name]) for name in matters)
            raise NeededError(f"; leave out {options}, or use a server that takes it")
        else:
            return None
        return amended

    def learn(self, tried: Self) -> None:
        """Remembers what a request was answered with; says once what is missed."""
        missed = [
            (name, value)
            for name, value in tried.left_out - self.left_out
            if name in MISSED and (name, value) not in NEUTRAL.items()
        ]
        self.left_out |= tried.left_out
        self.names |= tried.names
        self.values |= tried.values
        for name, value in missed:
            what = name if value is None else f"{name}={value}"
            warnings.warn(
                f"the server does not take {what}, so it is left out: {MISSED[name]}",
                stacklevel=2,
            )

    def _spellings(self, name: str) -> tuple[str, str]:
        return name, self.names.get(name, name)

    def _is_mentioned(self, name: str, said: str) -> bool:
        spellings = "|".join(map(re.escape, self._spellings(name)))
        return bool(re.search(rf"(?<!\w)(?:{spellings})(?!\w)", said, re.IGNORECASE))


def _key(name: str, value: Any) -> Key:
    return name, value if name in NEUTRAL else None


def _shown(name: str, value: Any) -> str:
    return f"{name}={value!r}" if len(repr(value)) <= SHORT else name
