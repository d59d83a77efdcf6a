"""The rules of `IFEval`, in a process of their own: those of if-verifiable, where they decide.

That package has the rules of the paper's own code, unchanged. They leave open what an argument
that they do not know means, and when there is no verdict.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import langdetect
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

from bestofn.errors import ConfigError
from bestofn.verifiers.checker import CheckError

Rule = Callable[[str], bool]

# Otherwise the same text may get another language each time.
langdetect.DetectorFactory.seed = 0
# An undetected language is logged with the whole response; here it is an error instead.
logging.getLogger().addHandler(logging.NullHandler())

DETECTING = {
    "language:response_language",
    "change_case:english_capital",
    "change_case:english_lowercase",
}


def follows(instructions: Sequence[tuple[str, dict[str, Any]]], response: str, loose: bool) -> bool:
    """Whether all instructions are followed.

    Raises:
        ConfigError: an instruction is not known or lacks an argument.
        CheckError: none is broken, but one could not be checked.
    """
    rules = [_rule(kind, arguments) for kind, arguments in instructions]
    readings = _readings(response) if loose else [response]
    unchecked: CheckError | None = None
    for rule in rules:
        try:
            if not _passes(rule, readings):
                return False
        except CheckError as error:
            unchecked = error
    if unchecked:
        raise unchecked
    return True


def _readings(response: str) -> list[str]:
    """The response, and what the loose accuracy accepts in its place."""
    lines = response.split("\n")
    cuts = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    texts = [response, *cuts]
    return [*texts, *(text.replace("*", "") for text in texts)]


def _passes(rule: Rule, readings: Sequence[str]) -> bool:
    """Whether one of the readings does; only the first, the response itself, must be checkable."""
    unchecked: CheckError | None = None
    for text in readings:
        try:
            if text.strip() and rule(text):
                return True
        except CheckError as error:
            if text is readings[0]:
                unchecked = error
    if unchecked:
        raise unchecked
    return False


def _rule(kind: str, arguments: Mapping[str, Any]) -> Rule:
    """The rule of one instruction.

    Raises:
        ConfigError: there is none of this kind, or it does not take these arguments.
    """
    if kind not in INSTRUCTION_DICT:
        near = get_close_matches(kind, INSTRUCTION_DICT, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"IFEval has no instruction {kind!r}{hint}")
    checker = INSTRUCTION_DICT[kind](kind)
    needed, given = sorted(checker.get_instruction_args_keys()), sorted(arguments)
    if needed != given:
        # A missing argument would be drawn at random.
        raise ConfigError(f"instruction {kind!r} takes the arguments {needed}, not {given}")
    try:
        checker.build_description(**arguments)
    except Exception as error:
        raise ConfigError(f"instruction {kind!r} cannot have {dict(arguments)!r}") from error
    known = checker.get_instruction_args() or {}
    for name, value in arguments.items():
        # What is empty or out of its range is replaced by something drawn at random.
        empty = value in ("", [])
        if empty or (isinstance(value, int | float) and known[name] != value):
            raise ConfigError(f"instruction {kind!r} cannot have {name} {value!r}")
    if "letter" in arguments and known["letter"] != str(arguments["letter"]).lower():
        return _sign_rule(kind, **arguments)
    return lambda text: _checked(kind, checker.check_following, text)


def _sign_rule(kind: str, letter: Any, let_frequency: int, let_relation: str) -> Rule:
    """Counts a sign that is no letter, such as "#": the package would count a random letter."""
    if not isinstance(letter, str) or len(letter) != 1:
        raise ConfigError(f"instruction {kind!r} counts one letter, not {letter!r}")
    if let_relation == "less than":
        return lambda text: text.lower().count(letter.lower()) < let_frequency
    return lambda text: text.lower().count(letter.lower()) >= let_frequency


def _checked(kind: str, rule: Rule, text: str) -> bool:
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
