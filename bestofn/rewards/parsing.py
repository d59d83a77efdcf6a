"""From a model's output to the field that was asked for, or to a reason why not."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bestofn.thinking import is_unclosed, split_thinking

MAX_CHARACTERS = 20_000  # of one answer, several times the default token limit; longer: a runaway
MAX_DEPTH = 50  # of nested brackets; an instruction needs one
FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
LABEL = re.compile(
    r"\A\W*(?:the\s+)?(?:(?:most\s+)?(?:plausible|likely|inferred|original)\s+)*"
    r"(?:instruction|prompt|question|system prompt)(?:\s+is)?\**:\**\s*",
    re.IGNORECASE,
)
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "`": "`"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text, or the reason why there is none: exactly one of them.

    Reasons: "empty", "unclosed thinking", "no JSON", "missing field", "wrong type", "truncated",
    "too long".
    """

    text: str | None = None
    reason: str | None = None


def parse_plain(output: str, *, truncated: bool = False) -> Parsed:
    """The whole answer as the instruction, without a label and surrounding quotes.

    Args:
        output: What the model wrote.
        truncated: Whether it was cut at the token limit: half an instruction is none.
    """
    answer = _answer(output)
    if answer.reason is not None or answer.text is None:
        return answer
    if truncated:
        return Parsed(reason="truncated")
    text = LABEL.sub("", answer.text.strip("* \n")).strip()
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text.count(text[-1]) <= 2:
        text = text[1:-1].strip()
    return Parsed(text) if text else Parsed(reason="empty")


def parse_field(output: str, field: str, *, truncated: bool = False) -> Parsed:
    """A text field of the JSON object that the model was asked for.

    JSON may be fenced, pretty-printed, surrounded by text, slightly malformed or cut off behind
    the field. Where several objects hold the field the last one counts.

    Args:
        output: What the model wrote.
        field: The key; case, spaces, underscores and hyphens do not count.
        truncated: Whether the output was cut at the token limit.
    """
    answer = _answer(output)
    if answer.reason is not None or answer.text is None:
        return answer
    text = answer.text
    if _depth(text) > MAX_DEPTH:
        return Parsed(reason="no JSON")
    values = [value for data in _strict(text) for value in _lookup(data, field)]
    if not values:
        return _repaired(text, field, truncated)
    return _as_text(values[-1])


def _answer(output: str) -> Parsed:
    """The output without its reasoning."""
    if len(output) > MAX_CHARACTERS:
        return Parsed(reason="too long")
    if is_unclosed(output):
        return Parsed(reason="unclosed thinking")
    _, answer = split_thinking(output)
    return Parsed(answer.strip()) if answer.strip() else Parsed(reason="empty")


def _depth(text: str) -> int:
    """The deepest nesting of opening brackets, those that never close included."""
    deepest = depth = 0
    for character in text:
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]" and depth:
            depth -= 1
    return deepest


def _strict(text: str) -> Iterator[Any]:
    """Every well-formed JSON object or list in the text, in order, none inside another."""
    decoder, position = json.JSONDecoder(strict=False), 0
    while (found := re.compile(r"[{\[]").search(text, position)) is not None:
        try:
            data, position = decoder.raw_decode(text, found.start())
            yield data
        except ValueError:
            position = found.start() + 1


def _repaired(text: str, field: str, truncated: bool) -> Parsed:
    """What a repair of the JSON yields, unless the repair had to end the value itself."""
    import json_repair

    fenced = FENCE.findall(text)
    if fenced and "{" in fenced[-1]:
        text = fenced[-1]
    if "{" not in text:
        return Parsed(reason="no JSON")
    text = text[text.index("{") :]
    values = _lookup(json_repair.loads(text), field)
    if not values:
        return Parsed(reason="truncated" if truncated else "missing field")
    value = _as_text(values[-1])
    if value.text is not None and _is_cut(text, value.text):
        return Parsed(reason="truncated")
    return value


def _is_cut(text: str, value: str) -> bool:
    """Whether the text ends inside the value: nothing that could close it stands behind."""
    tail = value[-12:].rstrip()
    position = text.rfind(tail)
    behind = text[position + len(tail) :] if position >= 0 else text[-2:]
    return not re.search(r"[\"'”’}\]`]", behind)


def _lookup(data: Any, field: str) -> list[Any]:
    """The values under the field: in an object, in objects of a list, or one level down."""
    if isinstance(data, list):
        return [value for item in data if isinstance(item, dict) for value in _lookup(item, field)]
    if not isinstance(data, dict):
        return []
    wanted = _normal(field)
    here = [value for key, value in data.items() if _normal(str(key)) == wanted]
    if here:
        return here
    inner = [item for item in data.values() if isinstance(item, dict)]
    return [value for item in inner for key, value in item.items() if _normal(str(key)) == wanted]


def _normal(key: str) -> str:
    return re.sub(r"[\s_\-]+", "", key).casefold()


def _as_text(value: Any) -> Parsed:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, str):
        return Parsed(reason="wrong type")
    return Parsed(value.strip()) if value.strip() else Parsed(reason="empty")
