"""Two texts compared by their words: the inferred instruction with the true one, in [0, 1], and a
response with the instruction that it may quote (the copy guard)."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import cache
from math import ceil
from typing import Any

from bestofn.identity import identity_of
from bestofn.registry import BUILT_IN, find

Similarity = Callable[[str, str], float]

# Ranges of letters of scripts that are written without spaces: a letter with its marks is a word.
UNSPACED_LETTERS = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai letters
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"  # Thai vowel signs and tone marks
    "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"  # kana voicing, variant selectors
)
UNSPACED = f"[{UNSPACED_LETTERS}][{MARKS}]*"

NON_ASCII = re.compile(r"[^\x00-\x7f]")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLE = re.compile(r"\b(?:a|an|the)\b")
UNSPACED_WORD = re.compile(f"({UNSPACED})")


def words(text: str) -> list[str]:
    """The normalised words of a text: those of the SQuAD metric, which FLIP uses, on ASCII text.

    Beyond ASCII, characters are brought to one form (NFKC), Unicode punctuation is dropped too, and
    Chinese, Japanese and Thai are split by character.
    """
    text = unicodedata.normalize("NFKC", NON_ASCII.sub(_without_punctuation, text))
    text = text.lower().translate(ASCII_PUNCTUATION)
    # Before the split by character: an "a" amid Chinese is no article.
    text = ARTICLE.sub(" ", text)
    return UNSPACED_WORD.sub(r" \1 ", text).split()


def _without_punctuation(match: re.Match[str]) -> str:
    character = match.group()
    if not unicodedata.category(character).startswith("P"):
        return character
    # Full-width punctuation has its space built in.
    return " " if unicodedata.east_asian_width(character) in "FW" else ""


def f1(inferred: str, target: str) -> float:
    """Word F1 (SQuAD, arXiv 1606.05250), as FLIP uses it (arXiv 2602.13551); 0 without words.

    Computed as 2 x overlap / (words of both), which rounds once, so that equal scores are equal
    to the last bit.
    """
    guess, truth = words(inferred), words(target)
    overlap = (Counter(guess) & Counter(truth)).total()
    return 2 * overlap / (len(guess) + len(truth)) if overlap else 0.0


class _Words:
    """The tokenizer that rouge_score asks for; its own drops everything beyond ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge_l(inferred: str, target: str) -> float:
    """ROUGE-L F-measure (Lin 2004) over the same words: the longest common subsequence."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return float(scorer.score(target, inferred)["rougeL"].fmeasure)


def name_of(similarity: Similarity) -> str | dict[str, Any]:
    """What the similarity is called; of a function of one's own its identity."""
    known = [name for name in BUILT_IN["similarity"] if find("similarity", name)[0] is similarity]
    return known[0] if known else identity_of(similarity)


def resolve(similarity: str | Similarity) -> Similarity:
    """The similarity of this name, or the function itself."""
    found: Similarity = similarity if callable(similarity) else find("similarity", similarity)[0]
    return found


# --- quotes of the instruction --------------------------------------------------------------------

# One character of a script that is written without spaces, or a run of other word characters.
WORD = re.compile(rf"{UNSPACED}|[^\W_{UNSPACED_LETTERS}]+")
ASCII_WORD = re.compile(r"[a-z0-9]+")

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
    source = _words(_folded(instruction)[0])
    shortest = max(MIN_RUN, min(MAX_RUN, ceil(SHARE * len(source))))
    if not _share_a_run(source, _words(text), shortest):
        return []
    said = list(WORD.finditer(text))
    matcher = SequenceMatcher(None, source, [word.group() for word in said], autojunk=False)
    spans, open_ranges = [], [(0, len(said))]
    while open_ranges:
        low, high = open_ranges.pop()
        if high - low < shortest:
            continue
        run = matcher.find_longest_match(0, len(source), low, high)
        if run.size >= shortest:
            end = run.b + run.size
            spans.append((places[said[run.b].start()], places[said[end - 1].end()]))
            open_ranges += [(low, run.b), (end, high)]
    return sorted(spans)


def _words(folded: str) -> list[str]:
    """What `WORD` finds; in ASCII, as most text is, a simpler pattern finds the same sooner."""
    return (ASCII_WORD if folded.isascii() else WORD).findall(folded)


def _share_a_run(source: list[str], said: list[str], size: int) -> bool:
    # A matcher takes many times as long.
    text = f" {' '.join(said)} "
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
    """The text without the spans and punctuation left dangling; empty if no word is left."""
    for start, end in reversed(spans):
        text = text[:start].rstrip(OPENING) + " " + text[end:].lstrip(CLOSING)
    return "" if spans and not WORD.search(text) else text.strip()
