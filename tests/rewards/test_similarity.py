"""Word F1 against its check values and against a plain restatement of the SQuAD rule."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.rewards.similarity import f1, resolve, rouge_l, words

QUESTION = "what is soil degradation?"


def ascii_words(text: str) -> list[str]:
    """The rule as published."""
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def ascii_f1(guess: str, truth: str) -> float:
    left, right = ascii_words(guess), ascii_words(truth)
    common = sum((Counter(left) & Counter(right)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(left), common / len(right)
    return 2 * precision * recall / (precision + recall)


ASCII = st.text(st.characters(max_codepoint=127))
PHRASE = st.lists(
    st.sampled_from(["the", "a", "an", "Soil", "soil,", "is", "42", "it's", "-", "a-b", "\x1c"])
).map(" ".join)


@given(ASCII | PHRASE, ASCII | PHRASE)
def test_equals_the_published_rule_on_ascii(a: str, b: str) -> None:
    assert words(a) == ascii_words(a)
    assert f1(a, b) == pytest.approx(ascii_f1(a, b), abs=1e-12)


@given(st.text() | PHRASE, st.text() | PHRASE)
def test_symmetric_and_bounded(a: str, b: str) -> None:
    assert 0 <= f1(a, b) <= 1
    assert f1(a, b) == f1(b, a)
    assert f1(a, a) == (1.0 if words(a) else 0.0)


def test_check_values() -> None:
    assert f1(QUESTION, "Define 'soil degradation'.") == pytest.approx(4 / 7)
    assert f1(QUESTION, "Explain soil degradation, and its causes.") == pytest.approx(0.4)


def test_equal_scores_are_equal_to_the_last_bit() -> None:
    """1 of 1 and 3 words shared, 3 of 5 and 7: both are one half, and have to tie."""
    assert f1("x", "x y z") == f1("p q r s t", "p q r u v w o") == 0.5


@pytest.mark.parametrize(("a", "b"), [("", ""), ("?!", "the"), ("soil", ""), ("soil", "rain")])
def test_nothing_in_common_is_zero(a: str, b: str) -> None:
    assert f1(a, b) == 0
    assert rouge_l(a, b) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cost: $5 + 3 = ~8 `x`", ["cost", "5", "3", "8", "x"]),
        ("解释土壤退化。", ["解", "释", "土", "壤", "退", "化"]),
        ("土の劣化とは？", ["土", "の", "劣", "化", "と", "は"]),
        ("コーヒーを々", ["コ", "ー", "ヒ", "ー", "を", "々"]),
        ("か\u3099", ["が"]),  # a combining voice mark
        ("อธิบายดิน", ["อ", "ธิ", "บ", "า", "ย", "ดิ", "น"]),
        ("พี่ ๑๒", ["พี่", "๑๒"]),  # two marks on one letter; a number stays whole
        ("葛\U000e0100x", ["葛\U000e0100", "x"]),  # a variant selector
        ("Python，Java写a代码", ["python", "java", "写", "a", "代", "码"]),
        ("ab日cd", ["ab", "日", "cd"]),
        ("토양 황폐화", ["토양", "황폐화"]),
        ("«Qu’est-ce que l’été ?»", ["questce", "que", "lété"]),
        ("GPT-4 ist gut…", ["gpt4", "ist", "gut"]),
        ("5 € × 3", ["5", "€", "×", "3"]),  # symbols beyond ASCII stay
        ("cafe\u0301 ｆｕｌｌ", ["café", "full"]),  # one form for equal text
        ("a\u0301 thé", ["á", "thé"]),  # no articles
    ],
)
def test_words_beyond_ascii(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_chinese_is_not_zero() -> None:
    assert f1("解释土壤退化", "什么是土壤退化") == pytest.approx(2 * 4 / 13)


def test_rouge_l_follows_order() -> None:
    assert rouge_l("count from 3 to 9", "count from 3 to 9") == pytest.approx(1)
    assert rouge_l("9 to 3 from count", "count from 3 to 9") == pytest.approx(0.2)
    assert rouge_l("土壤退化", "土壤侵蚀") == pytest.approx(0.5)


def test_resolve_by_name() -> None:
    assert resolve("f1") is f1
    assert resolve("rouge_l") is rouge_l


def test_resolve_a_function() -> None:
    class Constant:
        def __call__(self, inferred: str, target: str) -> float:
            return 0.5

    constant = Constant()
    assert resolve(constant) is constant
    assert resolve(ascii_f1) is ascii_f1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="no similarity 'bleu'; use 'f1', 'rouge_l' or"):
        resolve("bleu")
