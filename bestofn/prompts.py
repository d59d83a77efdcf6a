"""What may stand for a prompt, and which of its messages a reward is about."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from random import Random
from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt

PromptLike = str | Prompt | Sequence[Message | Mapping[str, Any]]

ROLES = ("system", "user", "assistant")
DEEPEST = 100  # levels of lists and mappings in a column


def as_prompt(
    value: PromptLike, id: str | None = None, columns: Mapping[str, Any] | None = None
) -> Prompt:
    """A Prompt from a string (one user message), chat messages, or a Prompt.

    Without an id the prompt gets a hash of its content, so that equal prompts have equal ids.
    Without columns a Prompt keeps its own.

    Raises:
        ConfigError: it is empty, has no user message, or is not of one of these forms.
    """
    known = ""
    if isinstance(value, Prompt):
        messages, known = value.messages, value.id
        columns = value.columns if columns is None else columns
    elif isinstance(value, str):
        messages = (Message("user", value),)
    elif isinstance(value, Sequence):
        messages = tuple(_as_message(message) for message in value)
    else:
        raise ConfigError(
            f"a prompt is a string or a list of chat messages, not {type(value).__name__}"
        )
    if not messages or messages[-1].role != "user":
        raise ConfigError("the last message of a prompt must be a user message")
    if not messages[-1].content.strip():
        raise ConfigError("the prompt is empty; give it some text")
    return Prompt(messages, id or known or _content_id(messages), columns or {})


def as_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as chat templates, servers and data sets have them."""
    return [{"role": turn.role, "content": turn.content, **turn.extra} for turn in messages]


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as plain text, a paragraph for each turn."""
    return "\n\n".join(map(_paragraph, messages))


def _paragraph(message: Message) -> str:
    if message.role == "tool":
        return spoken(message)
    role = "system" if message.role == "developer" else message.role
    return f"{role.capitalize()}: {spoken(message)}"


def spoken(message: Message) -> str:
    """What a turn says, tool calls and results as text."""
    if message.role == "tool":
        return f"Tool result: {message.content}"
    calls = message.extra.get("tool_calls")
    if not calls:
        return message.content
    return "\n\n".join(filter(None, [message.content, *map(_call, calls)]))


def _call(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping):
        return f"Tool call: {function}"
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return f"Tool call: {function.get('name')}({arguments})"


def content_id(prompt: Prompt) -> str:
    """The id that the prompt has by its content: 16 hexadecimal digits."""
    return _content_id(prompt.messages)


def _as_message(message: object) -> Message:
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        raise ConfigError(f"a chat message needs a `role` and a text `content`, not {message!r}")
    role = message.get("role")
    if role not in ROLES:
        raise ConfigError(f"a chat message has the role {' or '.join(ROLES)}, not {role!r}")
    return Message(role, message["content"])


def _content_id(messages: tuple[Message, ...]) -> str:
    text = "\x1e".join(f"{message.role}\x1f{message.content}" for message in messages)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def user_message(prompt: Prompt) -> str:
    """The last user message, whole."""
    return prompt.messages[-1].content


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

    Two shuffles by the same numbers are not a shuffle: whoever draws something anew has a purpose
    of its own.
    """
    return Random(candidate_seed(run_seed, replace(prompt, id=f"{prompt.id}\x1f{purpose}"), 0))


def plain(value: Any, depth: int = 0) -> Any:
    """A column's value as a pool's row can hold it: NaN is null, a date its text.

    Raises:
        ConfigError: it is nested too deeply.
    """
    if depth > DEEPEST:
        raise ConfigError(f"a column is nested more than {DEEPEST} levels deep")
    if isinstance(value, Mapping):
        return {str(name): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
