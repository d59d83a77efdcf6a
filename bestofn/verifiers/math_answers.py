"""What `Math` asks of math-verify, in a process of its own: nothing here bounds its own time."""

import logging
import re
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, MatrixBase, Symbol, nsimplify, simplify

# It warns that its own time limits are off; they would need the main thread.
logging.getLogger("math_verify").setLevel(logging.ERROR)

CONSIDERED = 20_000  # characters at the end of a response, where a final answer stands
CONFIG = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())


def readable(gold: str) -> bool:
    """Whether a reference answer can be read."""
    return bool(_gold(gold))


def equal(gold: str, response: str) -> bool:
    """Whether the response's final answer is the reference answer."""
    found = _parsed(response[-CONSIDERED:])
    return bool(verify(_gold(gold), found, timeout_seconds=None))


def canonical(response: str) -> str | None:
    """The response's final answer in one form for all that are equal, as far as that is known."""
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
    return list(parse(text, CONFIG, parsing_timeout=None))
