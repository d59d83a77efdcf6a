"""Reasoning is split from the answer, however the tags stand."""

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
    # The chat template opened the tag.
    ("six by seven</think>42", False, ("six by seven", "42")),
    ("six by seven</think>42", True, ("six by seven", "42")),
    ("six by seven", True, ("six by seven", "")),
    ("<think>six by seven</think>42", True, ("six by seven", "42")),
    ("six <think>by</think>42", True, ("six\n\nby", "42")),
    # Never closed.
    ("<think>six by", False, ("six by", "")),
    ("So: <think>six by", False, ("six by", "So:")),
    # Several blocks, and tags that do not pair up.
    ("<think>a</think>b<think>c</think>d", False, ("a\n\nc", "bd")),
    ("<think>a</think>b<think>c", False, ("a\n\nc", "b")),
    ("<think>a<think>b</think>c</think>d", False, ("a\n\nb\n\nc", "d")),
    ("a</think>b</think>c", False, ("a\n\nb", "c")),
    ("a < b and <thinker>", False, (None, "a < b and <thinker>")),
]


@pytest.mark.parametrize(("text", "opened", "expected"), CASES)
def test_split(text: str, opened: bool, expected: tuple[str | None, str]) -> None:
    assert split_thinking(text, opened=opened) == expected


def test_unclosed() -> None:
    assert is_unclosed("<think>a")
    assert is_unclosed("<think>a</think>b<think>")
    assert is_unclosed("a", opened=True)
    assert not is_unclosed("a</think>b", opened=True)
    assert not is_unclosed("<think>a</think>b")
    assert not is_unclosed("plain")


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<Reasoning>", "x", " y ", "<", "\n"]))


@given(PIECES.map("".join), st.booleans())
def test_every_word_goes_to_one_side(text: str, opened: bool) -> None:
    reasoning, answer = split_thinking(text, opened=opened)
    assert "think>" not in answer
    for word in "xy":
        assert text.count(word) == ((reasoning or "") + answer).count(word)


def test_a_flood_of_tags_ends() -> None:
    assert split_thinking("<think>" * 20_000) == ("", "")
    assert split_thinking("</think>" * 20_000) == ("", "")
