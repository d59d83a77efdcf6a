"""The copy guard: what is a quote and what is left without it."""

from typing import Any

import pytest

from bestofn.rewards.copying import find_quotes, without_spans

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


def test_few_honest_real_responses_are_flagged(alpaca_rows: list[dict[str, Any]]) -> None:
    flags = [
        bool(find_quotes(row["prompt"], candidate["text"]))
        for row in alpaca_rows
        for candidate in row["candidates"]
    ]
    assert len(flags) == 4799
    assert sum(flags) / len(flags) < 0.05
