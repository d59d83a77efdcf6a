"""Instructions that a program can check: IFEval (arXiv 2311.07911).

The rules are those of the package if-verifiable, which has the paper's own code unchanged. It
leaves open what an argument that it does not know means, and when there is no verdict.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Prompt
from bestofn.verifiers.base import BuiltIn, column
from bestofn.verifiers.checker import Checker, CheckError

MODES = ("strict", "loose")
DETECTING = {
    "language:response_language",
    "change_case:english_capital",
    "change_case:english_lowercase",
}


class IFEval(BuiltIn):
    """Whether the response follows all instructions: the prompt-level accuracy of section 2.2.

    The prompt's columns are those of the dataset google/IFEval: `instruction_id_list`, and
    `kwargs` with one mapping for each instruction, where an argument that it does not take is
    None. An empty response follows nothing.

    Args:
        mode: "strict" judges the response as it is. "loose" also without its first line, its last
            line or both, and each of these without asterisks; an instruction is followed where
            one of them follows it.
        seconds: Processor time that one response may take.
    """

    def __init__(self, mode: str = "strict", seconds: float = 20.0) -> None:
        if mode not in MODES:
            raise ConfigError(f"the verifier 'ifeval' is {' or '.join(MODES)}, not {mode!r}")
        if find_spec("if_verifiable") is None:
            raise ConfigError("the verifier 'ifeval' needs: pip install 'bestofn[ifeval]'")
        self.loose = mode == "loose"
        self._checker = Checker(__name__, seconds)

    def __call__(self, prompt: Prompt, response: str) -> bool:
        kinds = column(prompt, "instruction_id_list", (list, tuple), "a list of instruction ids")
        given = column(prompt, "kwargs", (list, tuple), "a list of mappings")
        if not (
            len(kinds) == len(given) > 0
            and all(isinstance(kind, str) for kind in kinds)
            and all(isinstance(arguments, Mapping) for arguments in given)
        ):
            raise ConfigError(
                f"prompt {prompt.id!r} needs as many instruction ids as mappings in `kwargs`, and "
                f"at least one, not {kinds!r} and {given!r}"
            )
        instructions = [
            (kind, {name: value for name, value in arguments.items() if value is not None})
            for kind, arguments in zip(kinds, given, strict=True)
        ]
        try:
            return bool(self._checker("follows", instructions, response, self.loose))
        except ConfigError as error:
            raise ConfigError(f"prompt {prompt.id!r}: {error}") from error


# What follows runs in the checker's process; the packages take seconds to import.

Rule = Callable[[str], bool]


def follows(instructions: Sequence[tuple[str, dict[str, Any]]], response: str, loose: bool) -> bool:
    """Whether all are followed; a `CheckError` if none is broken but one cannot be checked."""
    rules = [_rule(kind, arguments) for kind, arguments in instructions]
    readings = [response]
    if loose:
        lines = response.split("\n")
        readings += ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
        readings += [text.replace("*", "") for text in readings]
    unchecked: CheckError | None = None
    for rule in rules:
        fault: CheckError | None = None
        for place, text in enumerate(readings):
            try:
                if text.strip() and rule(text):
                    break
            except CheckError as error:
                # Only the response itself has to be checkable, not what is accepted for it.
                fault = fault if place else error
        else:
            if fault is None:
                return False
            unchecked = fault
    if unchecked:
        raise unchecked
    return True


@cache
def _kinds() -> dict[str, Any]:
    import langdetect
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    # Otherwise the same text may get another language each time.
    langdetect.DetectorFactory.seed = 0
    # An undetected language is logged with the whole response; here it is an error instead.
    logging.getLogger().addHandler(logging.NullHandler())
    return dict(INSTRUCTION_DICT)


def _rule(kind: str, arguments: Mapping[str, Any]) -> Rule:
    if kind not in _kinds():
        raise ConfigError(f"IFEval has no instruction {kind!r}")
    checker = _kinds()[kind](kind)
    refused = f"instruction {kind!r} cannot have the arguments {dict(arguments)!r}"
    # A missing argument would be drawn at random.
    if {*checker.get_instruction_args_keys()} != {*arguments}:
        raise ConfigError(refused)
    try:
        checker.build_description(**arguments)
    except Exception as error:
        raise ConfigError(refused) from error
    known = checker.get_instruction_args() or {}
    for name, value in arguments.items():
        # What is empty or out of its range is replaced by something drawn at random.
        if value in ("", []) or (isinstance(value, int | float) and known[name] != value):
            raise ConfigError(refused)
    letter = arguments.get("letter")
    if letter is None or known["letter"] == str(letter).lower():
        return lambda text: _checked(kind, checker.check_following, text)
    # A sign that is no letter, such as "#": the package would count a random letter.
    if not isinstance(letter, str) or len(letter) != 1:
        raise ConfigError(refused)
    most, less = arguments["let_frequency"], arguments["let_relation"] == "less than"
    return lambda text: (text.lower().count(letter.lower()) < most) == less


def _checked(kind: str, rule: Rule, text: str) -> bool:
    import langdetect

    try:
        passed = bool(rule(text))
        if passed and kind in DETECTING:
            # The rule also passes a text without a detectable language.
            langdetect.detect(text)
    except langdetect.LangDetectException as error:
        raise CheckError(f"{kind}: no language was detected: {error}") from error
    except LookupError as error:
        if "punkt_tab" not in str(error):
            raise
        raise CheckError(
            f"{kind}: the data of nltk that split text into sentences are missing; "
            "get them with: python -m nltk.downloader punkt_tab"
        ) from error
    return passed
