"""Verifiers that compare text."""

from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier, column, reference
from bestofn.verifiers.checker import Checker

SECONDS = 5.0  # of processor time for one response


class Exact(Verifier):
    """Whether the response is the column's text or number, white space around both aside.

    Args:
        column: Holds the reference answer.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def identity(self) -> dict[str, Any]:
        """What verdicts depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "column": self.column}

    def __call__(self, prompt: Prompt, response: str) -> bool:
        return self.answer(response) == self.answer(reference(prompt, self.column))


class ExactIgnoringCase(Exact):
    """As `Exact`, where upper and lower case are one, in votes too."""

    def answer(self, response: str) -> str:
        return response.strip().casefold()


class Regex(Verifier):
    """Whether the column's pattern is found anywhere in the response.

    Args:
        column: Holds a pattern of Python's `re`.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._check = Checker("bestofn.verifiers.regex_search", SECONDS)

    def identity(self) -> dict[str, Any]:
        """What verdicts depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "column": self.column}

    def __call__(self, prompt: Prompt, response: str) -> bool:
        pattern = str(column(prompt, self.column, str, "text"))
        try:
            return bool(self._check("found", pattern, response))
        except ConfigError as error:
            raise ConfigError(
                f"column {self.column!r} of prompt {prompt.id!r} is no pattern: {error}"
            ) from error
