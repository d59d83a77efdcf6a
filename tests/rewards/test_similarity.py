"""Word F1 against the SQuAD rule restated plainly, and what the copy guard takes for a quote."""

import re
import string
from collections import Counter
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.rewards.similarity import (
    MAX_RUN,
    MIN_RUN,
    SHARE,
    f1,
    find_quotes,
    rouge_l,
    without_spans,
    words,
)

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


def test_rouge_l_follows_order() -> None:
    assert rouge_l("count from 3 to 9", "count from 3 to 9") == pytest.approx(1)
    assert rouge_l("9 to 3 from count", "count from 3 to 9") == pytest.approx(0.2)
    assert rouge_l("土壤退化", "土壤侵蚀") == pytest.approx(0.5)


# --- quotes of the instruction --------------------------------------------------------------------

PROMPT = "What are the main causes of soil degradation?"


@pytest.mark.parametrize(
    ("response", "quotes"),
    [
        (PROMPT, True),
        (f"You asked: “{PROMPT}” Erosion, mostly.", True),
        ("The prompt was: WHAT are the main causes - of soil degradation ?!", True),
        ("The main causes of soil degradation are erosion and overuse.", False),
        ("", False),
        ("Soil, degradation, causes, main, of, the, are, what", False),
    ],
)
def test_quotes_are_found_and_honest_responses_not_flagged(response: str, quotes: bool) -> None:
    assert bool(find_quotes(PROMPT, response)) == quotes


def test_stripping_leaves_the_rest() -> None:
    response = f'{PROMPT} Erosion. Again, "{PROMPT}" and overuse.'
    stripped = without_spans(response, find_quotes(PROMPT, response))
    assert stripped == "Erosion. Again, and overuse."


RARE = "\U00020000\U00020001\U0002a6d6\U00030000\U00020002\U00020003"  # Han beyond the first plane


@pytest.mark.parametrize("text", [RARE, "豈更車賈滑串", "々〇仝ゝヽ々", "ㇰㇱㇲㇳㇴㇵ"])
def test_every_script_without_spaces_has_its_words(text: str) -> None:
    """A character is a word for the guard as it is for the similarity."""
    assert len(words(text)) == len(text)
    assert find_quotes(text, f"{text[0]}问题：{text}。答案：侵蚀。")


def test_few_honest_real_responses_are_flagged(alpaca_rows: list[dict[str, Any]]) -> None:
    flags = [
        bool(find_quotes(row["prompt"], candidate["text"]))
        for row in alpaca_rows
        for candidate in row["candidates"]
    ]
    assert len(flags) == 4799
    assert sum(flags) / len(flags) < 0.05


@pytest.mark.parametrize(
    "disguised",
    [
        "Whаt аrе thе mаin cаusеs оf sоil dеgrаdаtiоn?",  # Cyrillic vowels
        "Ｗｈａｔ ａｒｅ ｔｈｅ ｍａｉｎ ｃａｕｓｅｓ ｏｆ ｓｏｉｌ ｄｅｇｒａｄａｔｉｏｎ？",
        "\u200b".join(PROMPT),
        "W\u0336hat are the m\u00e1in causes of soil d\u00ade\u00adgradation?",
        "𝐖𝐡𝐚𝐭 𝐚𝐫𝐞 𝐭𝐡𝐞 𝐦𝐚𝐢𝐧 𝐜𝐚𝐮𝐬𝐞𝐬 𝐨𝐟 𝐬𝐨𝐢𝐥 𝐝𝐞𝐠𝐫𝐚𝐝𝐚𝐭𝐢𝐨𝐧?",
    ],
)
def test_a_disguised_quote_is_found_and_taken_out_whole(disguised: str) -> None:
    (span,) = find_quotes(PROMPT, disguised)
    assert not re.search(r"\w", without_spans(disguised, [span]))
    response = f"You asked: «{disguised}» Erosion – mostly."
    assert without_spans(response, find_quotes(PROMPT, response)) == "You asked: Erosion – mostly."


WORDS = st.lists(st.sampled_from(["add", "two", "and", "three"]), max_size=30)


@given(WORDS, WORDS)
def test_there_is_a_quote_where_a_run_of_words_is_shared(asked: list[str], said: list[str]) -> None:
    size = max(MIN_RUN, min(MAX_RUN, ceil(SHARE * len(asked))))
    asked_runs, said_runs = (
        {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
        for words in (asked, said)
    )
    assert bool(find_quotes(" ".join(asked), " ".join(said))) == bool(asked_runs & said_runs)
