"""Mathematical answers, compared by the math-verify package."""

from importlib.util import find_spec
from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier, reference
from bestofn.verifiers.checker import Checker, CheckError


class Math(Verifier):
    """Whether the response's final answer equals the column's, as mathematics and not as text.

    The final answer is the last `\\boxed{...}`, else what follows "answer", else the last formula
    or number; the package math-verify finds and compares it. Boxes with a comma, "and" or "or"
    between them in less than 70 characters, or with less than 10 of any, are one set. A response
    without an answer in its last 20,000 characters is wrong.

    Args:
        column: Holds the reference answer: LaTeX with or without `$`, a number, a text, or a
            solution that ends in `\\boxed{...}` or "#### ANSWER" (as in GSM8K).
        seconds: Processor time that one comparison may take.

    Raises:
        ConfigError: math-verify is not installed.
    """

    def __init__(self, column: str = "answer", seconds: float = 5.0) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError("the verifier 'math' needs: pip install 'bestofn[math]'")
        self.column = column
        self._checker = Checker("bestofn.verifiers.math_answers", seconds)

    def identity(self) -> dict[str, Any]:
        """What verdicts depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "column": self.column}

    def __call__(self, prompt: Prompt, response: str) -> bool:
        """The verdict.

        Raises:
            ConfigError: no answer can be read from the column.
            CheckError: the comparison took too long, or more memory than there is.
        """
        gold = reference(prompt, self.column)
        if not self._checker("readable", gold):
            raise ConfigError(
                f"column {self.column!r} of prompt {prompt.id!r} has no mathematical answer: "
                f"{gold[:80]!r}"
            )
        return bool(self._checker("equal", gold, response))

    def answer(self, response: str) -> str:
        """The final answer in one form, such as "1/2" for 0.5; the stripped text if none is found.

        Where it takes too long to simplify, it is the stripped text too.
        """
        try:
            found: str | None = self._checker("canonical", response)
        except CheckError:
            found = None
        return response.strip() if found is None else found
