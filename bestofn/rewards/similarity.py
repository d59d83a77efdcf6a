"""Similarity of the inferred instruction to the true one, in [0, 1]."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
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
    """The normalised words of a text: lower case, without punctuation and articles.

    On ASCII text these are the words of the SQuAD metric, which FLIP uses. Beyond ASCII, characters
    are brought to one form (NFKC), Unicode punctuation is dropped too, and Chinese, Japanese and
    Thai are split by character.
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
    """Word F1: the harmonic mean of precision and recall over the multisets of words.

    Computed as 2 x overlap / (words of both), which rounds once, so that equal scores are equal
    to the last bit. Two texts without words are not similar: 0.

    Source: SQuAD (arXiv 1606.05250), as FLIP uses it (arXiv 2602.13551).
    """
    guess, truth = words(inferred), words(target)
    overlap = (Counter(guess) & Counter(truth)).total()
    return 2 * overlap / (len(guess) + len(truth)) if overlap else 0.0


class _Words:
    """The tokenizer that rouge_score asks for; its own drops everything beyond ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge_l(inferred: str, target: str) -> float:
    """ROUGE-L F-measure over the same words: the longest common subsequence.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return float(scorer.score(target, inferred)["rougeL"].fmeasure)


def name_of(similarity: Similarity) -> str | dict[str, Any]:
    """What the similarity is called; of a function of one's own its identity."""
    known = [name for name in BUILT_IN["similarity"] if find("similarity", name)[0] is similarity]
    return known[0] if known else identity_of(similarity)


def resolve(similarity: str | Similarity) -> Similarity:
    """The similarity of this name, or the function itself.

    Raises:
        ConfigError: no similarity has this name.
    """
    found: Similarity = similarity if callable(similarity) else find("similarity", similarity)[0]
    return found
