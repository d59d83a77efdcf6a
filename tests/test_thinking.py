"""Reasoning is split from the answer, however the tags stand."""

import pytest

from bestofn.thinking import is_unclosed, split_thinking


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("42", False, (None, "42")),
        ("<think>six by seven</think>42", False, ("six by seven", "42")),
        ("<think>\nsix by seven\n</think>\n\n42\n", False, ("six by seven", "42")),
        ("<THINKING>x</THINKING> 42", False, ("x", "42")),
        ("six by seven</think>42", False, ("six by seven", "42")),
        ("six by seven</think>42", True, ("six by seven", "42")),
        ("six by seven", True, ("six by seven", "")),
        ("<think>six by", False, ("six by", "")),
        ("So: <think>six by", False, ("six by", "So:")),
        ("<think>a</think>b<think>c</think>d", False, ("a\n\nc", "bd")),
        ("<think></think>42", False, ("", "42")),
        ("", False, (None, "")),
    ],
)
def test_split(text: str, opened: bool, expected: tuple[str | None, str]) -> None:
    assert split_thinking(text, opened=opened) == expected


def test_unclosed() -> None:
    assert is_unclosed("<think>a")
    assert not is_unclosed("<think>a</think>b")
    assert not is_unclosed("plain")
