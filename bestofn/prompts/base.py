"""What may be given for a prompt, and which of its messages a reward is about."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from bestofn.errors import ConfigError
from bestofn.prompts.messages import as_message, as_turns, cleaned
from bestofn.prompts.values import clean
from bestofn.types import Message, Prompt

PromptLike = str | Prompt | Sequence[Message | Mapping[str, Any]]


def as_prompt(
    value: PromptLike, id: str | None = None, columns: Mapping[str, Any] | None = None
) -> Prompt:
    """A Prompt from a string (one user message), chat messages, or a Prompt.

    Without an id the prompt gets a hash of its content, so that equal prompts have equal ids.
    Without columns a Prompt keeps its own. Half of a surrogate pair becomes U+FFFD.

    Raises:
        ConfigError: it is empty, has no user message, or is not of one of these forms.
    """
    messages = conversation(value)
    _check(messages)
    known = value.id if isinstance(value, Prompt) else ""
    if columns is None:
        columns = value.columns if isinstance(value, Prompt) else {}
    # The hash is of the text as it was given, so that ids are those of version 0.1.
    name = id or known or _hash(_as_text(messages))
    return Prompt(tuple(map(cleaned, messages)), clean(str(name)), columns)


def conversation(value: PromptLike) -> tuple[Message, ...]:
    """The messages of what may be given for a prompt, whatever the last one is.

    Raises:
        ConfigError: it is not of one of the forms.
    """
    if isinstance(value, str):
        return (Message("user", value),)
    if hasattr(value, "tolist"):
        value = value.tolist()  # a list out of pandas
    turns = value.messages if isinstance(value, Prompt) else value
    if not isinstance(turns, Sequence):
        raise ConfigError(
            f"a prompt is a string or a list of chat messages, not {type(turns).__name__}"
        )
    return tuple(map(as_message, turns))


def _check(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role not in ("user", "tool"):
        raise ConfigError(
            "the last message of a prompt must be a user message or the result of a tool"
        )
    asked = next((turn.content for turn in reversed(messages) if turn.role == "user"), None)
    if asked is None:
        raise ConfigError("a prompt needs a user message")
    if not asked.strip():
        raise ConfigError("the prompt is empty; give it some text")


def _hash(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _as_text(messages: Sequence[Message]) -> str:
    """All that tells one conversation from another."""
    parts = (
        [turn.role, turn.content, *([_sorted(turn.extra)] if turn.extra else [])]
        for turn in messages
    )
    return "\x1e".join(map("\x1f".join, parts))


def _sorted(extra: Mapping[str, Any]) -> str:
    return json.dumps(extra, sort_keys=True, ensure_ascii=False)


def folded(text: str) -> str:
    """The text with '?' for U+FFFD: version 0.1 wrote that for half of a surrogate pair."""
    return text.replace("\ufffd", "?")


def content_key(prompt: Prompt) -> str:
    """A hash of what is asked, the same before a prompt is written and after it is read."""
    return _hash(folded(_as_text(prompt.messages)))


def comparable(prompt: Prompt) -> Any:
    """Messages and columns in a form that is the same before they are written and after."""
    parts = [as_turns(prompt.messages), dict(prompt.columns)]
    return json.loads(folded(json.dumps(parts, ensure_ascii=False)))


def user_message(prompt: Prompt) -> str:
    """The last user message, whole."""
    return next(turn.content for turn in reversed(prompt.messages) if turn.role == "user")


def system_message(prompt: Prompt) -> str | None:
    """The system prompt, None where there is none."""
    first = prompt.messages[0]
    return first.content if first.role in ("system", "developer") else None


def candidate_seed(run_seed: int, prompt: Prompt, index: int) -> int:
    """The seed of one candidate, 63 bits: a hash of run seed, prompt id and candidate index.

    Neither the order of prompts nor a resumed or sharded run changes it.
    """
    text = f"{run_seed}\x1f{prompt.id}\x1f{index}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def random_for(purpose: str, run_seed: int, prompt: Prompt) -> Random:
    """Random numbers for one purpose about one prompt, unrelated to those for any other.

    Two shuffles by the same numbers are not a shuffle, so each draw has a purpose of its own.
    """
    return Random(candidate_seed(run_seed, replace(prompt, id=f"{prompt.id}\x1f{purpose}"), 0))
