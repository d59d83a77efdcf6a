"""Reasoning is split from the answer by where it is; an answer may write about its tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.thinking import is_unclosed, split_thinking

CASES = [
    ("42", False, (None, "42")),
    ("  42\n", False, (None, "  42\n")),
    ("", False, (None, "")),
    ("<think>six by seven</think>42", False, ("six by seven", "42")),
    ("<think>\nsix by seven\n</think>\n\n42\n", False, ("six by seven", "42")),
    ("<THINKING>x</THINKING> 42", False, ("x", "42")),
    ("<reasoning>x</Reasoning>42", False, ("x", "42")),
    ("<think></think>42", False, ("", "42")),
    ("\n <think>six by seven</think>42", False, ("six by seven", "42")),
    # The chat template opened the tag.
    ("six by seven</think>42", True, ("six by seven", "42")),
    ("six by seven", True, ("six by seven", "")),
    ("<think>six by seven</think>42", True, ("six by seven", "42")),
    ("six <think>by</think>42", True, ("six\n\nby", "42")),
    ("</think>42", True, ("", "42")),
    # Several blocks at the beginning.
    ("<think>a</think>\n<reasoning>b</reasoning>d", False, ("a\n\nb", "d")),
    ("<think>a<think>b</think>c</think>d", False, ("a\n\nb\n\nc", "d")),
    ("<think><think>a</think>d", False, ("a", "d")),
    ("<think><think>a</think>b</think>d", False, ("a\n\nb", "d")),
    # Reasoning about the tag.
    ("<think>What is <think>?</think>A tag.", False, ("What is\n\n?", "A tag.")),
    (
        "What is <think>?</think>`<think>`, `</think>`.",
        True,
        ("What is\n\n?", "`<think>`, `</think>`."),
    ),
    ("<think>It is <think> and </think>.</think>d", False, ("It is\n\nand\n\n.", "d")),
    # Answers about the tag.
    ("Write `<think>` before the plan.", False, (None, "Write `<think>` before the plan.")),
    ("It ends with </think>, so", False, (None, "It ends with </think>, so")),
    ("So: <think>six by", False, (None, "So: <think>six by")),
    ("</think>42", False, (None, "</think>42")),
    ("<think>a</think>b<think>c</think>d", False, ("a", "b<think>c</think>d")),
    ("<think>a</think>b<reasoning>c", False, ("a", "b<reasoning>c")),
    ("a</think>b</thinking>c", True, ("a", "b</thinking>c")),
    ("a < b and <thinker>", False, (None, "a < b and <thinker>")),
]


@pytest.mark.parametrize("opened", [False, True])
def test_tags_in_backticks_are_mentions(opened: bool) -> None:
    begun = "" if opened else "<think>"
    text = f"{begun}say `<think>` b</think> Use `</think>` to close."
    assert split_thinking(text, opened=opened)[1] == "Use `</think>` to close."


@pytest.mark.parametrize(("text", "opened", "expected"), CASES)
def test_split(text: str, opened: bool, expected: tuple[str | None, str]) -> None:
    assert split_thinking(text, opened=opened) == expected
    assert not (is_unclosed(text, opened=opened) and expected[1])


@pytest.mark.parametrize("text", ["<think>a", "<think>a</think><think>b", "<think>" * 20_000])
def test_unclosed(text: str) -> None:
    assert is_unclosed(text)
    assert split_thinking(text)[1] == ""
    assert not is_unclosed(f"{text}</think>b<think>")


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<Reasoning>", "x", " y ", "<", "\n"]))


@given(PIECES.map("".join), st.booleans())
def test_every_word_goes_to_one_side(text: str, opened: bool) -> None:
    reasoning, answer = split_thinking(text, opened=opened)
    assert text.rstrip().endswith(answer.rstrip())
    for word in "xy":
        assert text.count(word) == ((reasoning or "") + answer).count(word)


@given(st.text() | PIECES.map("".join))
def test_an_answer_that_starts_with_text_is_whole(text: str) -> None:
    assert split_thinking(f"So: {text}") == (None, f"So: {text}")
    assert split_thinking(f"<think>hm</think>So: {text}") == ("hm", f"So: {text}".strip())
