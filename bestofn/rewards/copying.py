"""The copy guard: where a response quotes its instruction.

A quote makes the instruction easy to infer whatever else the response says, so it deserves a
mark, and on request is taken out before the backward pass.
"""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from math import ceil

from bestofn.rewards.similarity import UNSPACED, UNSPACED_LETTERS

# One character of a script that is written without spaces, or a run of other word characters.
WORD = re.compile(rf"{UNSPACED}|[^\W_{UNSPACED_LETTERS}]+")

MIN_RUN = 4  # words; shorter runs are shared by honest answers
MAX_RUN = 20  # words; a run this long is a quote however long the instruction is
SHARE = 0.9  # of the instruction's words, between the two

OPENING, CLOSING = " \"'“‘«「", " .?!,;:\"'”’»」。．？！，；："

# Letters that are drawn like a Latin one, Cyrillic and then Greek; capitals are made small first.
LOOK_ALIKES = dict(
    zip("авсԁеһніјкморԛѕтѵԝхуαβεικνορτυχζ", "abcdehhijkmopqstvwxyabeikvoptuxz", strict=True)
)


def find_quotes(instruction: str, response: str) -> list[tuple[int, int]]:
    """Spans of `response`, as characters from and to, that repeat the instruction word for word.

    A quote is a run of at least 90 % of the instruction's words, though never of fewer than 4 and
    never needing more than 20. Case, accents and punctuation do not count, nor do characters that
    show nothing, and a letter of another alphabet or width counts as the one that it looks like.
    """
    text, places = _folded(response)
    source = WORD.findall(_folded(instruction)[0])
    shortest = max(MIN_RUN, min(MAX_RUN, ceil(SHARE * len(source))))
    if not _share_a_run(source, WORD.findall(text), shortest):
        return []
    words = list(WORD.finditer(text))
    matcher = SequenceMatcher(None, source, [word.group() for word in words], autojunk=False)
    spans, open_ranges = [], [(0, len(words))]
    while open_ranges:
        low, high = open_ranges.pop()
        if high - low < shortest:
            continue
        run = matcher.find_longest_match(0, len(source), low, high)
        if run.size >= shortest:
            end = run.b + run.size
            spans.append((places[words[run.b].start()], places[words[end - 1].end()]))
            open_ranges += [(low, run.b), (end, high)]
    return sorted(spans)


def _share_a_run(source: list[str], words: list[str], size: int) -> bool:
    """Whether `size` words stand in both one after another; a matcher takes many times as long."""
    text = f" {' '.join(words)} "
    runs = (source[start : start + size] for start in range(len(source) - size + 1))
    return any(f" {' '.join(run)} " in text for run in runs)


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text as it is compared, and where in `text` each of its characters and its end stand."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    pieces = [_seen(character) for character in text]
    places = [place for place, piece in enumerate(pieces) for _ in piece]
    return "".join(pieces), [*places, len(text)]


@cache
def _seen(character: str) -> str:
    """What a reader sees: plain small letters, and nothing for what shows nothing."""
    parts = unicodedata.normalize("NFKD", character).lower()
    visible = [part for part in parts if unicodedata.category(part) not in ("Cf", "Mn")]
    return "".join(LOOK_ALIKES.get(part, part) for part in visible)


def without_spans(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with the spans taken out, and the punctuation that would be left dangling.

    A text of which they leave no word becomes empty.
    """
    for start, end in reversed(spans):
        text = text[:start].rstrip(OPENING) + " " + text[end:].lstrip(CLOSING)
    return "" if spans and not WORD.search(text) else text.strip()
