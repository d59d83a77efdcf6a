"""Verifiers that compare text."""

import pytest

from bestofn.prompts import as_prompt
from bestofn.verifiers import load_verifier
from bestofn.verifiers.checker import CheckError


def test_a_pattern_that_backtracks_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestofn.verifiers.base.SECONDS", 0.5)
    verifier = load_verifier("regex:pattern")
    prompt = as_prompt("x", columns={"pattern": r"^(\d+,?)+$"})
    with pytest.raises(CheckError, match=r"no verdict within 0\.5 s"):
        verifier(prompt, "1" * 60 + "x")
    assert verifier(prompt, "1,22") is True
