"""Specs of verifiers, columns, and verifiers of one's own."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Prompt
from bestofn.verifiers import Verifier, load_verifier
from bestofn.verifiers.checker import CheckError


def prompt(**columns: Any) -> Prompt:
    return as_prompt("What is it?", id="q7", columns=columns)


@pytest.mark.parametrize(
    ("spec", "value", "right", "wrong"),
    [
        ("exact:answer", " Paris\n", "\tParis ", "paris"),
        ("exact:answer", 12, "12", "12.0"),
        ("exact:answer", 0.5, "0.5", "0.50"),
        ("iexact:answer", "PARIS", "Paris", "Paris."),
        ("regex:answer", r"\bpar[ie]s\b", "It is paris.", "It is parisian."),
        ("regex:answer", r"(?is)^a.*z$", "A\nz", "Az."),
    ],
)
def test_text(spec: str, value: object, right: str, wrong: str) -> None:
    verifier = load_verifier(spec)
    assert verifier(prompt(answer=value), right) is True
    assert verifier(prompt(answer=value), wrong) is False


@given(st.text(), st.text())
def test_votes_agree_with_the_verdict(one: str, other: str) -> None:
    for spec in ("exact:x", "iexact:x"):
        verifier = load_verifier(spec)
        equal = verifier.answer(one) == verifier.answer(other)
        assert verifier(prompt(x=one), other) == equal


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        ("exact:gold", {"answer": "1"}, "prompt 'q7' has no column 'gold'; it has 'answer'"),
        ("regex:gold", {}, "prompt 'q7' has no column 'gold'; it has no columns"),
        ("exact:gold", {"gold": ["1"]}, "'gold' of prompt 'q7' must be text or a number, not list"),
        ("exact:gold", {"gold": True}, "must be text or a number, not bool"),
        ("regex:gold", {"gold": 5}, "column 'gold' of prompt 'q7' must be text, not int"),
        ("regex:gold", {"gold": "(a"}, "column 'gold' of prompt 'q7' is no pattern: missing"),
    ],
)
def test_columns_that_are_not_usable(spec: str, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_verifier(spec)(prompt(**columns), "a")


def test_a_pattern_that_backtracks_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bestofn.verifiers.base.SECONDS", 0.5)
    verifier = load_verifier("regex:x")
    with pytest.raises(CheckError, match=r"no verdict within 0\.5 s"):
        verifier(prompt(x=r"^(\d+,?)+$"), "1" * 60 + "x")
    assert verifier(prompt(x=r"^(\d+,?)+$"), "1,22") is True


def test_tiny() -> None:
    verifier = load_verifier("tiny")
    assert isinstance(verifier, Verifier)
    asked = as_prompt("Add 2 and 3.")
    assert verifier(asked, "2 + 3 = 5") is True
    assert verifier(asked, "2 + 3 = 6") is False
    assert verifier.answer(" 5\n") == "5"
    with pytest.raises(ConfigError, match="the tiny world has no instruction like 'What is it"):
        verifier(prompt(), "5")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exat", "no verifier 'exat'; did you mean 'exact:COLUMN'?"),
        ("nonesuch", "no verifier 'nonesuch'; use 'exact:COLUMN'"),
        ("exact", "no verifier 'exact'; its form is 'exact:COLUMN'"),
        ("math:", "no verifier 'math:'; its form is 'math[:COLUMN]'"),
        ("tiny:x", "no verifier 'tiny:x'; its form is 'tiny'"),
        ("ifeval:lose", "the verifier 'ifeval' is strict or loose, not 'lose'"),
        ("exat:answer", "there is no module 'exat'; did you mean 'exact:COLUMN'?"),
        ("string:digits", "'string:digits' is no verifier: it is not callable but str"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_verifier(spec)


@pytest.mark.parametrize("name", ["math", "ifeval"])
def test_without_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"bestofn.verifiers.{name}.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'bestofn\[{name}\]'"):
        load_verifier(name)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = """
def half(prompt, response):
    return 0.5 if prompt.columns["x"] in response else 0

class Short:
    limit = 3
    def __call__(self, prompt, response):
        return len(response) < self.limit
    def answer(self, response):
        return str(len(response))

class Needs:
    def __init__(self, argument): pass
"""
    (tmp_path / "own_checks.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_checks", raising=False)
    return tmp_path


def test_own_function_and_class(own_module: Path) -> None:
    half = load_verifier("own_checks:half")
    assert half(prompt(x="b"), "abc") == 0.5
    assert half.answer(" abc\n") == "abc"
    short = load_verifier("own_checks:Short")
    assert short(prompt(), "ab") is True
    assert short.answer("abcd") == "4"
    with pytest.raises(ConfigError, match="'own_checks:Needs' does not take"):
        load_verifier("own_checks:Needs")


def test_a_kind_is_never_a_module(own_module: Path) -> None:
    (own_module / "regex.py").write_text("def answer(prompt, response): return True")
    assert load_verifier("regex:answer")(prompt(answer="x"), "y") is False
