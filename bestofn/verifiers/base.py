"""The Verifier protocol, the columns that verifiers read, and `load_verifier`."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn, Protocol, runtime_checkable

from bestofn.errors import ConfigError
from bestofn.types import Prompt


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


def column(prompt: Prompt, name: str, kinds: type | tuple[type, ...], expected: str) -> object:
    """The prompt's column of that name.

    Raises:
        ConfigError: there is none, or it is of none of the `kinds`; `expected` says what they are.
    """
    if name not in prompt.columns:
        known = ", ".join(map(repr, prompt.columns)) or "no columns"
        raise ConfigError(f"prompt {prompt.id!r} has no column {name!r}; it has {known}")
    value: object = prompt.columns[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ConfigError(
            f"column {name!r} of prompt {prompt.id!r} must be {expected}, "
            f"not {type(value).__name__}"
        )
    return value


def reference(prompt: Prompt, name: str) -> str:
    """The column as a reference answer: its text, or its number as text.

    Raises:
        ConfigError: there is no such column, or it is neither text nor a number.
    """
    return str(column(prompt, name, (str, int, float), "text or a number"))


def load_verifier(spec: str) -> Verifier:
    """The verifier that a spec names.

    Args:
        spec: "exact:COLUMN" (the response is the column's text, white space around it aside),
            "iexact:COLUMN" (so that upper and lower case are one), "regex:COLUMN" (the column's
            pattern is found in the response), "math" or "math:COLUMN" (the final answer equals
            the column's, "answer" by default), "ifeval" or "ifeval:loose" (all instructions are
            followed), "tiny" (the tiny world's own rules), or "package.module:name" for a
            callable `(prompt, response) -> bool or float`, or a class of such, on the import path
            or in the working directory. What stands before the colon is first looked up among
            the kinds, so that "math:answer" is never a module.

    Raises:
        ConfigError: the spec has another form, or what it names cannot be loaded.
    """
    kind, colon, argument = spec.partition(":")
    if kind not in _VERIFIERS:
        if argument and all(part.isidentifier() for part in spec.replace(":", ".").split(".")):
            return _imported(spec, kind, argument)
        _refuse(spec)
    module, name, form = _VERIFIERS[kind]
    takes, needs = ":" in form, ":" in form and "[" not in form
    if (colon and not (takes and argument)) or (needs and not colon):
        _refuse(spec, form)
    verifier: Verifier = getattr(import_module(module), name)(*[argument] * bool(colon))
    return verifier


def load_answer(answer: str | Callable[[str], str]) -> Callable[[str], str]:
    """What votes compare, as a function of the response.

    Args:
        answer: Such a function, or a verifier's name, whose `answer` it is; see `load_verifier`.

    Raises:
        ConfigError: it is neither, or there is no such verifier.
    """
    if isinstance(answer, str):
        return load_verifier(answer).answer
    if not callable(answer):
        raise ConfigError(
            f"answer is a verifier's name such as 'math', or a function, not {answer!r}"
        )
    return answer


def _imported(spec: str, module: str, path: str) -> Verifier:
    from bestofn.verifiers.imported import load

    try:
        return load(module, path)
    except ConfigError as error:
        near = get_close_matches(module, _VERIFIERS, 1)
        hint = f"; for the verifier {near[0]!r} write '{_VERIFIERS[near[0]][2]}'" if near else ""
        raise ConfigError(f"no verifier {spec!r}: {error}{hint}") from error


def _refuse(spec: str, form: str | None = None) -> NoReturn:
    if form:
        raise ConfigError(f"no verifier {spec!r}: its form is '{form}'")
    near = get_close_matches(spec.partition(":")[0], _VERIFIERS, 1)
    hint = f"did you mean '{_VERIFIERS[near[0]][2]}'? known: " if near else "use "
    forms = ", ".join(f"'{known}'" for *_, known in _VERIFIERS.values())
    raise ConfigError(f"no verifier {spec!r}: {hint}{forms} or 'package.module:name'")


# Module, class and form; a part in brackets may be left out. Imported at use.
_VERIFIERS = {
    "exact": ("bestofn.verifiers.text", "Exact", "exact:COLUMN"),
    "iexact": ("bestofn.verifiers.text", "ExactIgnoringCase", "iexact:COLUMN"),
    "regex": ("bestofn.verifiers.text", "Regex", "regex:COLUMN"),
    "math": ("bestofn.verifiers.math", "Math", "math[:COLUMN]"),
    "ifeval": ("bestofn.verifiers.ifeval", "IFEval", "ifeval[:loose]"),
    "tiny": ("bestofn.verifiers.tiny", "Tiny", "tiny"),
}
