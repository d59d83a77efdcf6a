"""Mathematical answers: what is equal, what is not, and what must not hang."""

import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestofn.errors import ConfigError
from bestofn.prompts import as_prompt
from bestofn.types import Prompt
from bestofn.verifiers import load_verifier
from bestofn.verifiers.checker import CheckError
from bestofn.verifiers.math import Math, canonical, equal, readable

# A row with the columns of MATH-500.
ROW = json.loads(r"""
{
  "problem": "A bag holds 3 red and 5 blue marbles. What part of the marbles is red?",
  "solution": "There are $3 + 5 = 8$ marbles, so the part is $\\boxed{\\frac{3}{8}}$.",
  "answer": "\\frac{3}{8}",
  "subject": "Prealgebra",
  "level": 1,
  "unique_id": "test/prealgebra/0.json"
}
""")


def prompt(**columns: Any) -> Prompt:
    return as_prompt("What is it?", id="m1", columns=columns)


EQUAL = [
    (r"\frac{1}{2}", r"\boxed{0.5}"),
    (r"\frac{3}{2}", r"\boxed{1\frac{1}{2}}"),
    ("1,000", r"\boxed{1000}"),
    (r"11,\! 111", r"\boxed{11111}"),
    (r"50\%", r"\boxed{0.5}"),
    (r"5.4 \text{ cents}", r"\boxed{5.4}"),
    (r"\$18.90", "It costs $18.90."),
    (r"(3, \frac{\pi}{2})", r"\boxed{(3,\pi/2)}"),
    ("1,2", r"\boxed{2,1}"),
    ("[2,5)", r"The answer is $[2, 5)$."),
    (r"(-\infty, 3]\cup[4,\infty)", r"\boxed{[4,\infty)\cup(-\infty,3]}"),
    ("x=5", r"\boxed{5}"),
    ("x^2-1", r"\boxed{(x-1)(x+1)}"),
    (r"\sqrt{8}", r"\boxed{2\sqrt2}"),
    (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}"),
    ("5 boxes of 240 each\n#### 1,200", r"\boxed{1200}"),
    ("7", "So \\boxed{8}.\n\nWait! That is wrong. It is \\boxed{7} of 10."),
    (r"\{7,8\}", r"\boxed{8} or \boxed{7}"),
]
DIFFERENT = [
    ("0.333", "1/3"),
    ("(1,2)", r"\boxed{(2,1)}"),
    ("[2,5)", r"\boxed{(2,5)}"),
    ("x=5", r"\boxed{y=5}"),
    ("1,2", r"\boxed{1,2,3}"),
    ("7", r"So \boxed{7}. Wait! That is wrong. It is \boxed{8}."),
    # Boxes that a comma joins are one set, whatever else stands between them.
    ("7", r"\boxed{8}, no, wait: \boxed{7}"),
    ("3", r"\boxed{}"),
    ("3", "I do not know."),
]


@pytest.mark.parametrize("pair", EQUAL + DIFFERENT)
def test_equal(pair: tuple[str, str]) -> None:
    gold, response = pair
    assert readable(gold)
    assert equal(gold, response) == (pair in EQUAL)


@settings(deadline=None, max_examples=40)
@given(st.integers(-999, 999), st.integers(1, 99))
def test_fractions_in_any_terms(numerator: int, factor: int) -> None:
    value = Fraction(numerator, 7)
    gold = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    response = rf"So it is \boxed{{\frac{{{numerator * factor}}}{{{7 * factor}}}}}."
    assert equal(gold, response)
    assert not equal(gold, rf"\boxed{{\frac{{{numerator + 1}}}{{7}}}}")
    assert canonical(response) == str(value)


@pytest.mark.parametrize(
    ("responses", "answer"),
    [
        ([r"\boxed{0.5}", "It is 1/2", r"the answer is $\frac{2}{4}$"], "1/2"),
        ([r"\boxed{x = 3}", "3", r"\boxed{3.0}"], "3"),
        ([r"\boxed{2,1}", r"$\{1,2\}$"], "{1, 2}"),
        ([r"\boxed{\sqrt{8}}", r"\boxed{2\sqrt{2}}"], "2*sqrt(2)"),
        ([r"\boxed{???}"], "???"),
        ([r"\boxed{-3 \le x < 2, x \text{ odd}}"], None),
        (["  no idea\n"], None),
    ],
)
def test_votes(responses: list[str], answer: str | None) -> None:
    verifier = Math()
    if answer is None:
        (response,) = responses
        # Each response without an answer votes for itself, not all of them together.
        assert verifier.answer(response) != ""
        assert verifier.answer(response) == verifier.answer(response + " ")
    else:
        assert {verifier.answer(response) for response in responses} == {answer}


def test_rows() -> None:
    row = prompt(**ROW)
    for spec in ("math", "math:answer", "math:solution"):
        verifier = load_verifier(spec)
        assert verifier(row, r"Three of eight: \boxed{0.375}") is True
        assert verifier(row, r"\boxed{\frac{3}{5}}") is False
        assert verifier(row, "I cannot say.") is False
    assert load_verifier("math:level")(row, "1") is True


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "prompt 'm1' has no column 'answer'"),
        ({"answer": ""}, "column 'answer' of prompt 'm1' has no mathematical answer: ''"),
    ],
)
def test_columns_that_are_not_usable(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_verifier("math")(prompt(**columns), "5")


@pytest.mark.parametrize(
    "response",
    ["9**9**9**9", r"\boxed{9^{9^{9^{9}}}}", r"\boxed{(10^9)!}"],
)
def test_what_never_ends_is_no_verdict(response: str) -> None:
    verifier = Math(seconds=1.0)
    with pytest.raises(CheckError, match=r"no verdict within 1 s of processor time"):
        verifier(prompt(answer="5"), response)
    assert verifier.answer(response) == response
    assert verifier(prompt(answer="5"), "5") is True


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bestofn.verifiers import load_verifier; "
        "load_verifier('math'); load_verifier('ifeval'); "
        "print({'sympy', 'math_verify', 'nltk', 'datasets'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
