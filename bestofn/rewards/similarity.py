"""Similarity of the inferred instruction to the true one, in [0, 1]."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable

from bestofn.errors import ConfigError

Similarity = Callable[[str, str], float]

# Scripts that are written without spaces: a character, with its combining marks, is a word.
UNSPACED = re.compile(
    "(["
    "\u0e00-\u0e30\u0e32-\u0e33\u0e40-\u0e46\u0e50-\u0e5b"  # Thai but for its combining marks
    "\u3040-\u3098\u309b-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "])"
)


def words(text: str) -> list[str]:
    """The normalised words of a text: lower case, without punctuation and articles.

    On ASCII text these are the words of the SQuAD metric, which the paper uses. Beyond ASCII,
    Unicode punctuation is dropped as well, and Chinese, Japanese and Thai are split by character.
    """
    kept = "".join(
        character
        for character in text.lower()
        if character not in string.punctuation and unicodedata.category(character)[0] != "P"
    )
    # Articles go before the split: the reference looks for them at word boundaries.
    kept = re.sub(r"\b(a|an|the)\b", " ", kept)
    return UNSPACED.sub(r" \1", kept).split()


def f1(inferred: str, target: str) -> float:
    """Word F1: the harmonic mean of precision and recall over the multisets of words.

    Two texts without words are not similar: 0.

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
    """ROUGE-L F-measure over the same words: the longest common subsequence."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return float(scorer.score(target, inferred)["rougeL"].fmeasure)


KNOWN: dict[str, Similarity] = {"f1": f1, "rouge_l": rouge_l}


def resolve(similarity: str | Similarity) -> Similarity:
    """A similarity by name, or the callable itself.

    Raises:
        ConfigError: no similarity has this name.
    """
    if callable(similarity):
        return similarity
    if similarity not in KNOWN:
        raise ConfigError(f"no similarity {similarity!r}: use {' or '.join(KNOWN)}, or a function")
    return KNOWN[similarity]
