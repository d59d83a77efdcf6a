"""The Verifier protocol, verifiers that compare text, a function of one's own, `load_verifier`."""

import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from bestofn.errors import ConfigError
from bestofn.identity import identity_of
from bestofn.prompts import user_message
from bestofn.registry import find, is_own, make
from bestofn.types import Prompt
from bestofn.verifiers.checker import Checker

SECONDS = 5.0  # of processor time that a search for a pattern may take


@runtime_checkable
class Verifier(Protocol):
    """Says whether a response is right. A class that derives from it gets `answer`."""

    def __call__(self, prompt: Prompt, response: str) -> bool | float:
        """The gold verdict, normally in [0, 1]; reference answers are in `prompt.columns`.

        Raises:
            ConfigError: the prompt or its columns are not what the verifier reads.
        """
        ...

    def answer(self, response: str) -> str:
        """What votes compare: the stripped response, where a verifier knows nothing better."""
        return response.strip()


def column(prompt: Prompt, name: str, kinds: type | tuple[type, ...], expected: str) -> Any:
    """The prompt's column of that name; its type has to be in `kinds`, which `expected` names."""
    if name not in prompt.columns:
        known = ", ".join(map(repr, prompt.columns)) or "no columns"
        raise ConfigError(f"prompt {prompt.id!r} has no column {name!r}; it has {known}")
    value = prompt.columns[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ConfigError(
            f"column {name!r} of prompt {prompt.id!r} must be {expected}, "
            f"not {type(value).__name__}"
        )
    return value


def reference(prompt: Prompt, name: str) -> str:
    """The column as a reference answer: its text, or its number as text."""
    return str(column(prompt, name, (str, int, float), "text or a number"))


class BuiltIn(Verifier):
    """A verifier whose public attributes are all that its verdicts depend on."""

    def identity(self) -> dict[str, Any]:
        """See `bestofn.identity`."""
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"kind": type(self).__name__} | public


class Exact(BuiltIn):
    """Whether the response is the column's text or number, white space around both aside."""

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, prompt: Prompt, response: str) -> bool:
        return self.answer(response) == self.answer(reference(prompt, self.column))


class ExactIgnoringCase(Exact):
    """As `Exact`, where upper and lower case are one, in votes too."""

    def answer(self, response: str) -> str:
        return response.strip().casefold()


class Regex(BuiltIn):
    """Whether the column's pattern, one of Python's `re`, is found anywhere in the response."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._check = Checker(__name__, SECONDS)

    def __call__(self, prompt: Prompt, response: str) -> bool:
        pattern = column(prompt, self.column, str, "text")
        try:
            return bool(self._check("pattern_found", pattern, response))
        except ConfigError as error:
            raise ConfigError(
                f"column {self.column!r} of prompt {prompt.id!r} is no pattern: {error}"
            ) from error


def pattern_found(pattern: str, response: str) -> bool:
    """What `Regex` runs in a process of its own, since a pattern can backtrack for ever."""
    try:
        return re.search(pattern, response) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(str(error)) from error


class Tiny(BuiltIn):
    """Whether the response is right by the exact rules of the tiny world; it reads no column."""

    def __call__(self, prompt: Prompt, response: str) -> bool:
        from bestofn.tiny import verify

        return verify(user_message(prompt), response)


class Function(Verifier):
    """Any callable as a verifier; votes compare the stripped text."""

    def __init__(self, function: Callable[[Prompt, str], bool | float]) -> None:
        self.function = function

    def identity(self) -> dict[str, Any]:
        """What the function is called; see `bestofn.identity`."""
        return identity_of(self.function)

    def __call__(self, prompt: Prompt, response: str) -> bool | float:
        return self.function(prompt, response)


def load_verifier(spec: str) -> Verifier:
    """The verifier that a spec names.

    Args:
        spec: "exact:COLUMN", "iexact:COLUMN" (upper and lower case are one), "regex:COLUMN",
            "math" or "math:COLUMN" ("answer" by default), "ifeval" or "ifeval:loose", "tiny", or
            "package.module:Name" for a callable `(prompt, response) -> bool or float`, or a class
            of such. The part before the colon is first looked up among the kinds.

    Raises:
        ConfigError: the spec has another form, or what it names cannot be loaded.
    """
    found, arguments = find("verifier", spec)
    if not is_own("verifier", spec):
        verifier: Verifier = found(*arguments)
        return verifier
    own = make(f"the verifier {spec!r}", found, [], {})
    if not callable(own):
        raise ConfigError(f"{spec!r} is no verifier: it is not callable but {type(own).__name__}")
    return own if isinstance(own, Verifier) else Function(own)


def load_answer(answer: str | Callable[[str], str]) -> Callable[[str], str]:
    """What votes compare: a function of the response, or the `answer` of the verifier of a name."""
    if isinstance(answer, str):
        return load_verifier(answer).answer
    if not callable(answer):
        raise ConfigError(f"answer is a verifier's name or a function, not {answer!r}")
    return answer
