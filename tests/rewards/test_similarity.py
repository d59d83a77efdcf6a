"""Word F1 against its check values and against a plain restatement of the SQuAD rule."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.rewards.similarity import f1, resolve, rouge_l, words


def squad_f1(a: str, b: str) -> float:
    """The rule as published, for ASCII."""

    def tokens(text: str) -> list[str]:
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    left, right = tokens(a), tokens(b)
    common = sum((Counter(left) & Counter(right)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(left), common / len(right)
    return 2 * precision * recall / (precision + recall)


def test_check_values() -> None:
    question = "what is soil degradation?"
    assert f1(question, "Define 'soil degradation'.") == pytest.approx(4 / 7)
    assert f1(question, "Explain soil degradation, and its causes.") == pytest.approx(0.4)


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126))
PHRASE = st.lists(st.sampled_from(["the", "a", "Soil", "soil,", "is", "42", "it's"])).map(" ".join)


@given(ASCII | PHRASE, ASCII | PHRASE)
def test_equals_squad_on_ascii(a: str, b: str) -> None:
    assert f1(a, b) == pytest.approx(squad_f1(a, b), abs=1e-12)


@given(st.text(), st.text())
def test_symmetric_and_bounded(a: str, b: str) -> None:
    assert 0 <= f1(a, b) <= 1
    assert f1(a, b) == f1(b, a)
    assert f1(a, a) == (1.0 if words(a) else 0.0)


def test_texts_without_words_are_not_similar() -> None:
    assert f1("", "") == 0
    assert f1("?!", "the") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("解释土壤退化。", ["解", "释", "土", "壤", "退", "化"]),
        ("土の劣化とは？", ["土", "の", "劣", "化", "と", "は"]),
        ("อธิบายดิน", ["อ", "ธิ", "บ", "า", "ย", "ดิ", "น"]),
        ("«Qu’est-ce que l’été ?»", ["questce", "que", "lété"]),
        ("GPT-4 ist gut", ["gpt4", "ist", "gut"]),
        ("Python 写代码", ["python", "写", "代", "码"]),
        ("토양 황폐화", ["토양", "황폐화"]),
    ],
)
def test_words_beyond_ascii(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_chinese_is_not_zero() -> None:
    assert f1("解释土壤退化", "什么是土壤退化") == pytest.approx(2 * 4 / 13)


def test_rouge_l_follows_order() -> None:
    assert rouge_l("count from 3 to 9", "count from 3 to 9") == pytest.approx(1)
    assert rouge_l("9 to 3 from count", "count from 3 to 9") < 0.5
    assert rouge_l("土壤退化", "土壤侵蚀") == pytest.approx(0.5)
    assert rouge_l("", "anything") == 0


def test_resolve() -> None:
    assert resolve("f1") is f1
    assert resolve(squad_f1) is squad_f1
    with pytest.raises(ConfigError, match="f1 or rouge_l"):
        resolve("bleu")
