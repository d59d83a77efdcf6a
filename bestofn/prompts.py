"""Prompts: what may be given for one, its messages, its id and its seeds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, get_args

from bestofn.errors import ConfigError
from bestofn.types import Message, Prompt, Role
from bestofn.values import clean, plain

__all__ = [
    "PromptLike",
    "answer_text",
    "as_given",
    "as_message",
    "as_prompt",
    "as_turns",
    "candidate_seed",
    "clean",
    "comparable",
    "content_key",
    "conversation",
    "folded",
    "plain",
    "random_for",
    "spoken",
    "system_message",
    "transcript",
    "user_message",
    "written",
]

PromptLike = str | Prompt | Sequence[Message | Mapping[str, Any]]
ROLES: tuple[Role, ...] = get_args(Role)
SHAREGPT: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation"), "tool"),
}
"""The roles by what ShareGPT's `from` says."""
CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")


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
    cleaned = tuple(replace(turn, content=clean(turn.content)) for turn in messages)
    return Prompt(cleaned, clean(str(name)), columns)


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
    texts = []
    for turn in messages:
        parts = [turn.role, turn.content]
        if turn.extra:
            parts.append(json.dumps(turn.extra, sort_keys=True, ensure_ascii=False))
        texts.append("\x1f".join(parts))
    return "\x1e".join(texts)


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


# --- messages -------------------------------------------------------------------------------------


def as_message(message: object) -> Message:
    """A message from a mapping with `role` and `content`, or with ShareGPT's `from` and `value`.

    Content may be a list of text parts, which are joined by line breaks, or null in a turn that
    calls tools. Of the other fields those about tools are kept.

    Raises:
        ConfigError: it has none of these forms, another role, or a part that is no text.
    """
    if isinstance(message, Message):
        role, content, extra = message.role, message.content, plain(message.extra)
    elif isinstance(message, Mapping):
        role, content = _said(message)
        extra = _about_tools(message, role)
    else:
        role, content, extra = None, None, {}
    if content is None and any(name in extra for name in CALLS):
        content = ""
    text = _joined(content)
    if text is None:
        raise ConfigError(f"a chat message needs a `role` and a text `content`, not {message!r}")
    if role not in ROLES:
        raise ConfigError(
            f"a chat message has the role {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role!r}"
        )
    return Message(role, text, extra)


def _said(message: Mapping[str, Any]) -> tuple[Any, Any]:
    """Role and content."""
    if "role" in message or "from" not in message:
        return message.get("role"), message.get("content")
    sender = message["from"]
    if not isinstance(sender, str) or sender not in SHAREGPT:
        raise ConfigError(f"a message of ShareGPT is from {', '.join(SHAREGPT)}, not {sender!r}")
    return SHAREGPT[sender], message.get("value")


def _about_tools(message: Mapping[str, Any], role: Any) -> dict[str, Any]:
    names = (*CALLS, "tool_call_id", *(["name"] if role == "tool" else []))
    fields = {name: plain(message.get(name)) for name in names}
    # A table has each field in every turn.
    return {
        name: _parsed(value) if name in CALLS else value for name, value in fields.items() if value
    }


def _parsed(calls: Any) -> Any:
    """Calls of tools, which tables hold as JSON text."""
    try:
        return plain(json.loads(calls)) if isinstance(calls, str) else calls
    except (ValueError, RecursionError):
        return calls


def _joined(content: Any) -> str | None:
    """A content's text, None where it has another form.

    Raises:
        ConfigError: a part of it is no text.
    """
    if isinstance(content, str):
        return content
    if hasattr(content, "tolist"):
        content = content.tolist()  # a list out of pandas
    if not isinstance(content, list | tuple):
        return None
    texts = [_part(part) for part in content]
    return None if None in texts else "\n".join(map(str, texts))


def _part(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else None
    kind, text = part.get("type", "text"), part.get("text")
    if kind not in TEXT_PARTS or not isinstance(text, str):
        raise ConfigError(
            f"a chat message has a part of type {kind!r} without a text; only text can be used"
        )
    return text


def answer_text(value: object) -> str:
    """A response from a text, a list of text parts, or chat messages that end with it.

    Raises:
        ConfigError: it has another form, or the last message is not the assistant's.
    """
    if isinstance(value, str):
        return clean(value)
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, Sequence) or not turns:
        raise ConfigError(f"a response is a text or chat messages, not {value!r}")
    last = turns[-1]
    if isinstance(last, Mapping) and ("role" in last or "from" in last):
        message = as_message(last)
        if message.role != "assistant":
            raise ConfigError(f"a response ends with a message of the assistant, not {last!r}")
        return clean(message.content)
    text = _joined(turns)
    if text is None:
        raise ConfigError(f"a response is a text or chat messages, not {value!r}")
    return clean(text)


def written(prompt: Any) -> Any:
    """A prompt as a row holds it, its messages with all of the fields that were written."""
    return [_whole(turn) for turn in prompt] if isinstance(prompt, list) else prompt


def _whole(turn: Any) -> Any:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
        return turn
    extra = {name: value for name, value in turn.items() if name not in ("role", "content")}
    return Message(turn.get("role"), turn["content"], extra)  # type: ignore[arg-type]


def as_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as chat templates, servers and data sets have them."""
    return [{"role": turn.role, "content": turn.content, **turn.extra} for turn in messages]


def as_given(messages: Sequence[Message]) -> Any:
    """The text of a single user message, else all turns."""
    alone = len(messages) == 1 and not messages[0].extra
    return messages[0].content if alone else as_turns(messages)


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as plain text, a paragraph for each turn."""
    paragraphs = []
    for turn in messages:
        role = "system" if turn.role == "developer" else turn.role
        speaker = "" if role == "tool" else f"{role.capitalize()}: "
        paragraphs.append(speaker + spoken(turn))
    return "\n\n".join(paragraphs)


def spoken(message: Message) -> str:
    """What a turn says, tool calls and results as text."""
    if message.role == "tool":
        return f"Tool result: {message.content}"
    calls = message.extra.get("tool_calls") or message.extra.get("function_call") or []
    listed = calls if isinstance(calls, list) else [calls]
    return "\n\n".join(filter(None, [message.content, *map(_call, listed)]))


def _call(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping):
        return f"Tool call: {function}"
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, default=str)
    return f"Tool call: {function.get('name')}({arguments})"
