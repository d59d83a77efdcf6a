"""Mathematical answers, compared by the math-verify package."""

import logging
import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Prompt
from bestofn.verifiers.base import BuiltIn, reference
from bestofn.verifiers.checker import Checker, CheckError

CONSIDERED = 20_000  # characters at the end of a response, where a final answer is looked for


class Math(BuiltIn):
    """Whether the response's final answer equals the column's, as mathematics and not as text.

    The final answer is the last `\\boxed{...}`, else what follows "answer", else the last formula
    or number; the package math-verify finds and compares it. Boxes with a comma, "and" or "or"
    between them in less than 70 characters, or with less than 10 of any, are one set. A response
    without an answer in its last 20,000 characters is wrong.

    Args:
        column: Holds the reference answer: LaTeX with or without `$`, a number, a text, or a
            solution that ends in `\\boxed{...}` or "#### ANSWER" (as in GSM8K).
        seconds: Processor time that one comparison may take.
    """

    def __init__(self, column: str = "answer", seconds: float = 5.0) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError("the verifier 'math' needs: pip install 'bestofn[math]'")
        self.column = column
        self._checker = Checker(__name__, seconds)

    def __call__(self, prompt: Prompt, response: str) -> bool:
        gold = reference(prompt, self.column)
        if not self._checker("readable", gold):
            raise ConfigError(
                f"column {self.column!r} of prompt {prompt.id!r} has no mathematical answer: "
                f"{gold[:80]!r}"
            )
        return bool(self._checker("equal", gold, response))

    def answer(self, response: str) -> str:
        """The final answer in one form, such as "1/2" for 0.5, else the stripped text."""
        try:
            found: str | None = self._checker("canonical", response)
        except CheckError:
            found = None
        return response.strip() if found is None else found


# What follows runs in the checker's process, as nothing here bounds its own time. The packages
# take seconds to import, so that they are imported at use.


def readable(gold: str) -> bool:
    return bool(_gold(gold))


def equal(gold: str, response: str) -> bool:
    from math_verify import verify

    return bool(verify(_gold(gold), _parsed(response[-CONSIDERED:]), timeout_seconds=None))


def canonical(response: str) -> str | None:
    """The response's final answer in one form for all that are equal, as far as that is known."""
    from sympy import Basic, Eq, MatrixBase, Symbol, nsimplify, simplify

    found = _parsed(response[-CONSIDERED:])
    if not found:
        return None
    value = found[0]
    if isinstance(value, Eq) and isinstance(value.lhs, Symbol):
        value = value.rhs
    if isinstance(value, Basic | MatrixBase):
        return str(simplify(nsimplify(value.doit(), rational=True)))
    return str(value).strip()


@lru_cache(maxsize=64)
def _gold(gold: str) -> list[Any]:
    answer = gold.rpartition("####")[2].strip()
    marked = re.search(r"(?<!\\)\$|\\boxed|\\\(|\\\[", answer)
    return _parsed(answer if marked or not answer else rf"\boxed{{{answer}}}")


def _parsed(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    # It warns that its own time limits are off; they would need the main thread.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    kinds = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return list(parse(text, kinds, parsing_timeout=None))
