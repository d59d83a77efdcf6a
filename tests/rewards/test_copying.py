"""The copy guard: what is a quote and what is left without it."""

import re
import unicodedata
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.rewards.copying import MAX_RUN, MIN_RUN, SHARE, find_quotes, without_spans
from bestofn.rewards.similarity import words

PROMPT = "What are the main causes of soil degradation?"


@pytest.mark.parametrize(
    "response",
    [
        PROMPT,
        f"You asked: “{PROMPT}” Erosion, mostly.",
        "WHAT ARE THE MAIN CAUSES OF SOIL DEGRADATION",
        "The prompt was: what are the main causes - of soil degradation ?!",
    ],
)
def test_quotes_are_found(response: str) -> None:
    assert find_quotes(PROMPT, response)


@pytest.mark.parametrize(
    "response",
    [
        "The main causes of soil degradation are erosion and overuse.",
        "Erosion.",
        "",
        "Soil, degradation, causes, main, of, the, are, what",
    ],
)
def test_honest_responses_are_not_flagged(response: str) -> None:
    assert not find_quotes(PROMPT, response)


def test_stripping_leaves_the_rest() -> None:
    response = f'{PROMPT} Erosion. Again, "{PROMPT}" and overuse.'
    stripped = without_spans(response, find_quotes(PROMPT, response))
    assert stripped == "Erosion. Again, and overuse."


def test_short_instructions_are_never_quotes() -> None:
    assert not find_quotes("Add 2 and", "Add 2 and 3")


def test_scripts_without_spaces() -> None:
    assert find_quotes("解释土壤退化的原因", "问题：解释土壤退化的原因。答案：侵蚀。")
    assert not find_quotes("解释土壤退化的原因", "侵蚀是土壤退化的主要原因。")


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


def test_accents_do_not_hide_a_quote_of_an_instruction_that_has_them() -> None:
    prompt = "Où se trouve le café près d'ici?"
    decomposed = unicodedata.normalize("NFD", prompt)
    assert find_quotes(prompt, decomposed) == [(0, len(decomposed) - 1)]


@given(before=st.text(max_size=20), after=st.text(max_size=20))
def test_whatever_stands_around_a_quote_it_is_found_where_it_is(before: str, after: str) -> None:
    response = f"{before} “{PROMPT}” {after}"
    spans = find_quotes(PROMPT, response)
    assert any(PROMPT[:-1] in response[start:end] for start, end in spans)
    assert all(0 <= start < end <= len(response) for start, end in spans)


@given(st.text(), st.text())
def test_any_texts_can_be_compared(instruction: str, response: str) -> None:
    spans = find_quotes(instruction, response)
    assert all(0 <= start < end <= len(response) for start, end in spans)
    assert spans == sorted(spans)


WORDS = st.lists(st.sampled_from(["add", "two", "and", "three"]), max_size=30)


@given(WORDS, WORDS)
def test_there_is_a_quote_where_a_run_of_words_is_shared(asked: list[str], said: list[str]) -> None:
    size = max(MIN_RUN, min(MAX_RUN, ceil(SHARE * len(asked))))
    asked_runs, said_runs = (
        {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
        for words in (asked, said)
    )
    assert bool(find_quotes(" ".join(asked), " ".join(said))) == bool(asked_runs & said_runs)
