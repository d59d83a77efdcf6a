"""The copy guard: where a response quotes its instruction.

A quote makes the instruction easy to infer whatever else the response says, so it deserves a
mark, and on request is taken out before the backward pass.
"""

import re
from difflib import SequenceMatcher
from math import ceil

# One character of a script that is written without spaces, or a run of other word characters.
WORD = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|[^\W_\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+"
)

MIN_RUN = 4  # words; shorter runs are shared by honest answers
MAX_RUN = 20  # words; a run this long is a quote however long the instruction is
SHARE = 0.9  # of the instruction's words, between the two


def find_quotes(instruction: str, response: str) -> list[tuple[int, int]]:
    """Spans of `response`, as characters from and to, that repeat the instruction word for word.

    A quote is a run of at least 90 % of the instruction's words, though never of fewer than 4 and
    never needing more than 20. Case and punctuation do not count.
    """
    source = [word.group().lower() for word in WORD.finditer(instruction)]
    words = list(WORD.finditer(response))
    shortest = max(MIN_RUN, min(MAX_RUN, ceil(SHARE * len(source))))
    if min(len(source), len(words)) < shortest:
        return []
    matcher = SequenceMatcher(
        None, source, [word.group().lower() for word in words], autojunk=False
    )
    spans, open_ranges = [], [(0, len(words))]
    while open_ranges:
        low, high = open_ranges.pop()
        if high - low < shortest:
            continue
        run = matcher.find_longest_match(0, len(source), low, high)
        if run.size >= shortest:
            end = run.b + run.size
            spans.append((words[run.b].start(), words[end - 1].end()))
            open_ranges += [(low, run.b), (end, high)]
    return sorted(spans)


def without_spans(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with the spans taken out, and the punctuation that would be left dangling."""
    for start, end in reversed(spans):
        text = text[:start].rstrip(" \"'“‘«") + " " + text[end:].lstrip(" .?!,;:\"'”’»")
    return text.strip()
