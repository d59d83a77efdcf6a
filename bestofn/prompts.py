"""Prompts: what may be given for one, its messages, its id and its seeds."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import isfinite
from random import Random
from typing import Any, get_args

from bestofn.errors import ConfigError
from bestofn.types import Candidate, Message, Prompt, Role

PromptLike = str | Prompt | Sequence[Message | Mapping[str, Any]]
Tools = tuple[Mapping[str, Any], ...]
ROLES: tuple[Role, ...] = get_args(Role)
SHAREGPT: dict[str, Role] = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation"), "tool"),
}
"""The roles by what ShareGPT's `from` says."""
CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")
DEEPEST = 100  # levels of lists and mappings in a column
MISSING = ("NAType", "NaTType")  # what pandas has for null
ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def as_prompt(
    value: PromptLike,
    id: str | None = None,
    columns: Mapping[str, Any] | None = None,
    tools: Tools | None = None,
) -> Prompt:
    """A Prompt from a string (one user message), chat messages, or a Prompt.

    Without an id the prompt gets a hash of its content, so that equal prompts have equal ids.
    Without columns or tools a Prompt keeps its own. Half of a surrogate pair becomes U+FFFD.

    Raises:
        ConfigError: it is empty, has no user message, or is not of one of these forms.
    """
    messages = conversation(value)
    if not messages or messages[-1].role not in ("user", "tool"):
        raise ConfigError(
            "the last message of a prompt must be a user message or the result of a tool"
        )
    asked = [turn.content for turn in messages if turn.role == "user"]
    if not asked:
        raise ConfigError("a prompt needs a user message")
    if not asked[-1].strip():
        raise ConfigError("the prompt is empty; give it some text")
    known = value if isinstance(value, Prompt) else Prompt(messages)
    tools = known.tools if tools is None else tools
    # The hash is of the text as it was given, so that ids are those of version 0.1.
    name = clean(str(id or known.id or _hash(_as_text(messages, tools))))
    cleaned = tuple(replace(turn, content=clean(turn.content)) for turn in messages)
    return Prompt(cleaned, name, known.columns if columns is None else columns, tools)


def conversation(value: PromptLike) -> tuple[Message, ...]:
    """The messages of what may be given for a prompt, whatever the last one is."""
    if isinstance(value, str):
        return (Message("user", value),)
    turns = value.messages if isinstance(value, Prompt) else _listed(value)
    if not isinstance(turns, Sequence):
        raise ConfigError(
            f"a prompt is a string or a list of chat messages, not {type(turns).__name__}"
        )
    return tuple(map(as_message, turns))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _as_text(messages: Sequence[Message], tools: Tools) -> str:
    """All that tells one conversation from another."""
    texts = [json.dumps(tools, sort_keys=True, ensure_ascii=False)] if tools else []
    for turn in messages:
        more = [json.dumps(turn.extra, sort_keys=True, ensure_ascii=False)] if turn.extra else []
        texts.append("\x1f".join([turn.role, turn.content, *more]))
    return "\x1e".join(texts)


def folded(text: str) -> str:
    """The text with '?' for U+FFFD: version 0.1 wrote that for half of a surrogate pair."""
    return text.replace("\ufffd", "?")


def content_key(prompt: Prompt) -> str:
    """A hash of what is asked, the same before a prompt is written and after it is read."""
    return _hash(folded(_as_text(prompt.messages, prompt.tools)))


def comparable(prompt: Prompt) -> Any:
    """Messages and columns in a form that is the same before they are written and after."""
    parts = [as_turns(prompt.messages), dict(prompt.columns), list(prompt.tools)]
    return json.loads(folded(json.dumps(parts, ensure_ascii=False)))


def user_message(prompt: Prompt) -> str:
    """The last user message, whole."""
    return next(turn.content for turn in reversed(prompt.messages) if turn.role == "user")


def system_message(prompt: Prompt) -> str | None:
    """The system prompt, None where there is none."""
    first = prompt.messages[0]
    return first.content if first.role in ("system", "developer") else None


def candidate_seed(run_seed: int, prompt: Prompt, index: int) -> int:
    """The seed of one candidate, 63 bits: a hash of run seed, prompt id and candidate index."""
    return int(_hash(f"{run_seed}\x1f{prompt.id}\x1f{index}"), 16) >> 1


def random_for(purpose: str, run_seed: int, prompt: Prompt) -> Random:
    """Random numbers for one purpose about one prompt, unrelated to those for any other."""
    return Random(candidate_seed(run_seed, replace(prompt, id=f"{prompt.id}\x1f{purpose}"), 0))


def as_message(message: object) -> Message:
    """A message from a mapping with `role` and `content`, or with ShareGPT's `from` and `value`.

    Content may be a list of text parts, which are joined by line breaks, or null in a turn that
    calls tools or has a `refusal`. Of the other fields those about tools are kept. All else raises
    ConfigError.
    """
    role: Any = None
    content, extra = None, dict[str, Any]()
    if isinstance(message, Message):
        role, content, extra = message.role, message.content, plain(message.extra)
    elif isinstance(message, Mapping):
        role, content = message.get("role"), message.get("content")
        if role is None and "from" in message:
            role, content = message["from"], message.get("value")
            role = SHAREGPT.get(str(role), role)
        for name in (*CALLS, "tool_call_id", *(["name"] if role == "tool" else [])):
            if value := plain(message.get(name)):  # a table has each field in every turn
                extra[name] = _parsed(value) if name in CALLS else value
    refused = isinstance(message, Mapping) and role == "assistant" and message.get("refusal")
    content = refused if content is None and refused else content
    text = "" if content is None and extra.keys() & CALLS else _joined(content)
    if text is None:
        raise ConfigError(f"a chat message needs a `role` and a text `content`, not {message!r}")
    if role not in ROLES:
        raise ConfigError(
            f"a chat message has the role {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role!r}"
        )
    return Message(role, text, extra)


def _parsed(calls: Any) -> Any:
    """Calls of tools, which tables hold as JSON text."""
    try:
        return plain(json.loads(calls)) if isinstance(calls, str) else calls
    except (ValueError, RecursionError):
        return calls


def _listed(value: Any) -> Any:
    """A list out of numpy or pandas as Python has it."""
    return value.tolist() if hasattr(value, "tolist") else value


def _joined(content: Any) -> str | None:
    """The text of a text or a list of text parts, None of anything else."""
    content = _listed(content)
    if isinstance(content, str) or not isinstance(content, list | tuple):
        return content if isinstance(content, str) else None
    texts = []
    for part in content:
        kind, text = "text", part
        if isinstance(part, Mapping):
            kind, text = part.get("type", "text"), part.get("text")
        if kind not in TEXT_PARTS or not isinstance(text, str):
            raise ConfigError(
                f"a chat message has a part of type {kind!r} without a text; only text can be used"
            )
        texts.append(text)
    return "\n".join(texts)


def answer_text(value: object) -> str:
    """A response from a text, a list of text parts, or chat messages that end with it."""
    turns = [value] if isinstance(value, Mapping) else _listed(value)
    last = turns[-1] if isinstance(turns, Sequence) and turns else None
    if isinstance(last, Mapping) and last.keys() & {"role", "from"}:
        message = as_message(last)
        if message.role != "assistant":
            raise ConfigError(f"a response ends with a message of the assistant, not {last!r}")
        return clean(spoken(message))
    text = _joined(turns) if last is not None or turns == "" else None
    if text is None:
        raise ConfigError(f"a response is a text or chat messages, not {value!r}")
    return clean(text)


def written(prompt: Any) -> Any:
    """A prompt as a row holds it, its messages with all of the fields that were written."""
    return [_whole(turn) for turn in prompt] if isinstance(prompt, list) else prompt


def _whole(turn: Any) -> Any:
    if not isinstance(turn, Mapping) or not turn.keys() >= {"role", "content"}:
        return turn
    extra = {name: value for name, value in turn.items() if name not in ("role", "content")}
    return Message(turn["role"], turn["content"], extra)


def as_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as chat templates, servers and data sets have them."""
    return [{"role": turn.role, "content": turn.content, **turn.extra} for turn in messages]


def as_given(messages: Sequence[Message]) -> Any:
    """The text of a single user message, else all turns."""
    alone = len(messages) == 1 and not messages[0].extra
    return messages[0].content if alone else as_turns(messages)


def split_opening(prompt: Prompt) -> tuple[tuple[Message, ...], str]:
    """The conversation, and the text that begins the answer to it; empty where nothing does."""
    last = prompt.messages[-1]
    if last.role != "assistant":
        return prompt.messages, ""
    return prompt.messages[:-1], last.content


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as plain text, a paragraph for each turn."""
    speakers = {"system": "System: ", "developer": "System: ", "tool": ""}
    return "\n\n".join(
        speakers.get(turn.role, f"{turn.role.capitalize()}: ") + spoken(turn) for turn in messages
    )


def answer_message(candidate: Candidate) -> Message:
    """The turn that a candidate is: what it says and the tools that it calls, apart."""
    if not candidate.tool_calls:
        return Message("assistant", candidate.text)
    calls = {"tool_calls": candidate.tool_calls}
    content = candidate.text.removesuffix(spoken(Message("assistant", "", calls))).rstrip()
    return Message("assistant", content, calls)


def spoken(message: Message) -> str:
    """What a turn says, tool calls and results as text.

    A call is a paragraph, `Tool call: NAME(ARGUMENTS)`, with the arguments as JSON whose keys are
    sorted, so that equal calls are the same text.
    """
    if message.role == "tool":
        return f"Tool result: {message.content}"
    calls = message.extra.get("tool_calls") or message.extra.get("function_call") or []
    listed = calls if isinstance(calls, list) else [calls]
    return "\n\n".join(filter(None, [message.content, *map(_call, listed)]))


def _call(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping):
        return f"Tool call: {function}"
    arguments = _parsed(function.get("arguments", ""))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, sort_keys=True, default=str)
    return f"Tool call: {function.get('name')}({arguments})"


def clean(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain(value: Any, depth: int = 0) -> Any:
    """A column's value as a row can hold it, and the same for the same value in every process.

    NaN and infinities are null, arrays and sets lists, scalars of numpy numbers, and what JSON has
    no form for is its text. Raises ConfigError where it is nested too deeply.
    """
    if depth > DEEPEST:
        raise ConfigError(f"a column is nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(name)): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, AbstractSet):
        return sorted((plain(item, depth + 1) for item in value), key=repr)
    if hasattr(value, "tolist"):
        is_time = getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M")
        return plain((value.astype(str) if is_time else value).tolist(), depth + 1)
    if type(value).__name__ in MISSING:
        return None
    # An object without a text of its own shows where in memory it is.
    return clean(ADDRESS.sub("", str(value)))
