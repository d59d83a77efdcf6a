"""Thinking models: what comes first in thinking tags is not the answer."""

import re

NAMES = ("think", "thinking", "reasoning")
ANY = f"(?:{'|'.join(NAMES)})"
TAG = re.compile(f"</?{ANY}>", re.IGNORECASE)
CLOSING = re.compile(f"</{ANY}>", re.IGNORECASE)
BEGINNING = re.compile(rf"(?:\s*<{ANY}>)+", re.IGNORECASE)

QUOTES = ("`", "'", '"')
TEMPLATE = -1  # where the opening tag of a chat template is, in front of the output


def split_thinking(text: str, *, opened: bool = False) -> tuple[str | None, str]:
    """Reasoning and answer of a model's output.

    Reasoning comes first: the prompt ended in an opening tag (`opened`), or the output begins with
    one. It ends at the tag that closes it, and another block may follow at once; all are joined by
    empty lines. Tags anywhere else are text of an answer that writes about them. The answer is
    stripped if there was any reasoning.
    """
    reasoning, answer = _read(text, opened)
    if reasoning is None:
        return None, text
    return "\n\n".join(filter(None, map(str.strip, reasoning))), (answer or "").strip()


def is_unclosed(text: str, *, opened: bool = False) -> bool:
    """Whether the output ends inside its reasoning."""
    return _read(text, opened)[1] is None


def ends_in_opening(prompt: str) -> bool:
    """Whether a prompt ends in an opening tag, so that the answer to it starts with reasoning."""
    tags = list(TAG.finditer(prompt.rstrip()))
    return bool(tags) and tags[-1].end() == len(prompt.rstrip()) and not _closes(tags[-1])


def is_half_a_tag(text: str) -> bool:
    """Whether all there is of an output is the beginning of an opening tag."""
    begun = text.strip().lower()
    return any(f"<{name}>".startswith(begun) for name in NAMES)


def _read(text: str, opened: bool) -> tuple[list[str] | None, str | None]:
    """Pieces of reasoning, None if there is none; and the answer, None if it never begins."""
    pairs = _pairs(text, opened)
    pieces: list[str] = []
    start, openings = 0, [TEMPLATE] if opened else []
    while True:
        if beginning := BEGINNING.match(text, start):
            openings += [tag.start() for tag in TAG.finditer(text, start, beginning.end())]
            start = beginning.end()
        if not openings:
            return pieces or None, text[start:]
        paired = (pairs[opening] for opening in openings if opening in pairs)
        end = next(paired, None) or CLOSING.search(text, start)
        if end is None:
            return [*pieces, *TAG.split(text[start:])], None
        pieces += TAG.split(text[start : end.start()])
        start, openings = end.end(), []


def _pairs(text: str, opened: bool) -> dict[int, re.Match[str]]:
    """The closing tag of each opening one, by its place, for those that pair up.

    Reasoning that mentions an opening tag leaves its own without a partner. A tag in quotes or
    backticks is a mention, and has none.
    """
    pairs: dict[int, re.Match[str]] = {}
    openings = [TEMPLATE] if opened else []
    for tag in TAG.finditer(text):
        if (
            text[tag.start() - 1 : tag.start()] in QUOTES
            and text[tag.end() : tag.end() + 1] in QUOTES
        ):
            continue
        if not _closes(tag):
            openings.append(tag.start())
        elif openings:
            pairs[openings.pop()] = tag
    return pairs


def _closes(tag: re.Match[str]) -> bool:
    return tag.group().startswith("</")
