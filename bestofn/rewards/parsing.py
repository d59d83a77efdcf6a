"""From a model's output to the field that was asked for, or to a reason why not."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from bestofn.engines.base import Completion
from bestofn.thinking import is_unclosed, split_thinking

REPAIR_LIMIT = 8_000  # characters; the repair of hostile input takes quadratic time
MAX_ATTEMPTS = 200  # failed decodings of one output; an honest one needs a few

MARK = "\ufdd0"  # a noncharacter: no text holds it
CUT = f"q{MARK}"  # begins with a letter, so that it can be a value, but not with a hex digit
CLOSED = re.compile(r"[}\]]\s*(?:```\s*)?\Z")
BREAK = r"[\s_\-*]"  # what varies between the spellings of a key
START = re.compile(r'\{\s*"')  # of strict JSON objects with a key
OBJECT = re.compile(r"""\{\s*(?:}|\\?["'`“‘]|\w[\w \-]*:)""")  # of anything meant as one
LABEL = re.compile(
    r"\A[\s*_#>]*(?:(?:here\s+is|the|user(?:['’]s)?|most|plausible|likely|inferred|original"
    r"|reconstructed|system)\s+)*(?:instruction|prompt|question|指令)(?:\s+(?:is|was))?"
    r"[\s*_]*[:：][\s*_]*",
    re.IGNORECASE,
)
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "『": "』"}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text that was read from an output, never blank, or the reason why there is none.

    Reasons: "empty", "unclosed_thinking" (the output ends inside its reasoning), "no_json",
    "missing_field", "wrong_type" (the field is no text), "truncated" (cut before the end of the
    text), "too_long" (malformed, and more than a repair may take).
    """

    text: str | None = None
    reason: str | None = None
    cut: bool = False  # whether the text ends at the token limit


def parse_completion(answer: Completion, field: str | None, *, numbers: bool = False) -> Parsed:
    """What a model's answer says: the whole of it, or with a `field` as `parse_field` has it."""
    truncated = answer.finish_reason == "length"
    if not answer.text and answer.reasoning is not None:
        return Parsed(reason="unclosed_thinking" if truncated else "empty")
    if field is None:
        return parse_plain(answer.text, truncated=truncated)
    return parse_field(answer.text, field, truncated=truncated, numbers=numbers)


def parse_plain(output: str, *, truncated: bool = False) -> Parsed:
    """The whole answer as the instruction, without a label and one pair of surrounding quotes.

    What was `truncated` at the token limit is the beginning of one, and marked as cut.
    """
    if is_unclosed(output):
        return Parsed(reason="unclosed_thinking")
    text = split_thinking(output)[1].strip()
    if not text:
        return Parsed(reason="empty")
    unlabelled = LABEL.sub("", text)
    text = LABEL.sub("", _unquote(text)) if unlabelled == text else _unquote(unlabelled)
    found = _as_text(text)
    return replace(found, cut=truncated and found.text is not None)


def parse_field(
    output: str, field: str, *, truncated: bool = False, numbers: bool = False
) -> Parsed:
    """A field of the JSON object that the model was asked for.

    The JSON may be fenced, pretty-printed, nested one level, surrounded by text, malformed within
    what `json_repair` mends, or cut behind the field. Of several objects with the field the last
    counts.

    Args:
        output: What the model wrote.
        field: The key; case, spaces, underscores, hyphens and asterisks do not count.
        truncated: Whether the output was cut at the token limit.
        numbers: Whether a number counts as its text.
    """
    if is_unclosed(output):
        return Parsed(reason="unclosed_thinking")
    answer = split_thinking(output)[1].strip()
    if not answer:
        return Parsed(reason="empty")
    strict, end = _strict(answer, field, numbers)
    found = _repaired(answer[end:], field, truncated, numbers) or strict
    if found is None and truncated:
        return Parsed(reason="truncated")
    return found or Parsed(reason="missing_field" if OBJECT.search(answer) else "no_json")


def _strict(text: str, field: str, numbers: bool) -> tuple[Parsed | None, int]:
    """The field of the last well-formed object that has it, and where that object ends."""
    decoder, position, failures = json.JSONDecoder(strict=False), 0, 0
    found, end = None, 0
    while failures < MAX_ATTEMPTS and (start := START.search(text, position)):
        try:
            data, position = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            position, failures = start.end(), failures + 1
            continue
        if values := _lookup(data, field):
            found, end = _as_value(values[-1], numbers), position
    return found, end


def _repaired(text: str, field: str, truncated: bool, numbers: bool) -> Parsed | None:
    """The field of malformed JSON; None where it does not occur in any."""
    import json_repair

    start, mention = OBJECT.search(text), _mention(field)
    if start is None or not mention.search(text, start.start()):
        return None
    malformed = text[start.start() :]
    if len(malformed) > REPAIR_LIMIT:
        return Parsed(reason="too_long")
    closed = CLOSED.search(malformed) and not truncated
    try:
        data = json_repair.loads(malformed if closed else malformed + CUT, skip_json_loads=True)
    except Exception:  # it also fails by assertion on some inputs: no data is the answer to any
        return None
    if not (values := _lookup(data, field)):
        return None
    # The library ends an open string where the input ends, so the mark gets into what was cut, and
    # may take the apostrophe of a word for the end of the value.
    value = values[-1]
    broken_off = re.compile(r"""[\s"'“‘`]*""" + re.escape(str(value)) + r"['’]\w")
    if MARK in json.dumps(value, ensure_ascii=False) or any(
        broken_off.match(malformed, key.end()) for key in mention.finditer(malformed)
    ):
        return Parsed(reason="truncated")
    return _as_value(value, numbers)


def _mention(field: str) -> re.Pattern[str]:
    """The field as a key, in any spelling that counts as the same."""
    parts = [re.escape(part) for part in re.split(f"{BREAK}+", field) if part]
    return re.compile(rf"{BREAK}*".join(parts) + r"""[\s"'”’`*\\]*:""", re.IGNORECASE)


def _lookup(data: Any, field: str) -> list[Any]:
    """The values under the field: in an object, in the objects of a list, or one level down."""
    outer = _dicts(data)
    inner = [item for whole in outer for value in whole.values() for item in _dicts(value)]
    found = (
        [value for item in level for key, value in item.items() if _normal(key) == _normal(field)]
        for level in (outer, inner)
    )
    return next(filter(None, found), [])


def _dicts(data: Any) -> list[dict[str, Any]]:
    items = data if isinstance(data, list) else [data]
    return [item for item in items if isinstance(item, dict)]


def _normal(key: str) -> str:
    return re.sub(f"{BREAK}+", "", key).casefold()


def _as_value(value: Any, numbers: bool) -> Parsed:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return Parsed(reason="wrong_type")
    return _as_text(value)


def _as_text(text: str) -> Parsed:
    # Escapes can spell half a surrogate pair, which no file and no tokenizer takes.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    return Parsed(text) if text else Parsed(reason="empty")


def _unquote(text: str) -> str:
    """The text without the quotes around it, if they are one pair and not two that meet."""
    closing = QUOTES.get(text[:1])
    if closing is None or len(text) < 2 or text[-1] != closing:
        return text
    inner = text[1:-1]
    mark = f"[{text[0]}{closing}]"
    # An apostrophe inside a word is no quote.
    return text if re.search(rf"(?<!\w){mark}|{mark}(?!\w)", inner) else inner
