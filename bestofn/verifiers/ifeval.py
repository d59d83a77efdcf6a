"""Instructions that a program can check: IFEval (arXiv 2311.07911)."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from bestofn.errors import ConfigError
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier, column
from bestofn.verifiers.checker import Checker

MODES = ("strict", "loose")


class IFEval(Verifier):
    """Whether the response follows all instructions: the prompt-level accuracy of section 2.2.

    The prompt's columns are those of the dataset google/IFEval: `instruction_id_list`, and
    `kwargs` with one mapping for each instruction, where an argument that it does not take is
    None. An empty response follows nothing.

    Args:
        mode: "strict" judges the response as it is. "loose" also without its first line, its last
            line or both, and each of these without asterisks; an instruction is followed where
            one of them follows it.
        seconds: Processor time that one response may take.

    Raises:
        ConfigError: the mode is another, or the package if-verifiable is not installed.
    """

    def __init__(self, mode: str = "strict", seconds: float = 20.0) -> None:
        if mode not in MODES:
            raise ConfigError(f"the verifier 'ifeval' is {' or '.join(MODES)}, not {mode!r}")
        if find_spec("if_verifiable") is None:
            raise ConfigError("the verifier 'ifeval' needs: pip install 'bestofn[ifeval]'")
        self.loose = mode == "loose"
        self._checker = Checker("bestofn.verifiers.ifeval_rules", seconds)

    def identity(self) -> dict[str, Any]:
        """What verdicts depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "loose": self.loose}

    def __call__(self, prompt: Prompt, response: str) -> bool:
        """The verdict.

        Raises:
            ConfigError: the columns name no known instructions with the arguments they need.
            CheckError: no instruction is broken, but one could not be checked.
        """
        instructions = _instructions(prompt)
        try:
            return bool(self._checker("follows", instructions, response, self.loose))
        except ConfigError as error:
            raise ConfigError(f"prompt {prompt.id!r}: {error}") from error


def _instructions(prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
    """Each instruction's id and its arguments, without those that are None."""
    kinds = column(prompt, "instruction_id_list", (list, tuple), "a list of instruction ids")
    given = column(prompt, "kwargs", (list, tuple), "a list of mappings")
    if not kinds or len(kinds) != len(given):
        raise ConfigError(
            f"prompt {prompt.id!r} has {len(kinds)} instructions and {len(given)} `kwargs`; "
            "it needs as many of the one as of the other, and at least one"
        )
    found = []
    for kind, arguments in zip(kinds, given, strict=True):
        if not isinstance(kind, str) or not isinstance(arguments, Mapping):
            raise ConfigError(
                f"prompt {prompt.id!r} must give an instruction as a text and its arguments as a "
                f"mapping, not {kind!r} and {arguments!r}"
            )
        found.append((kind, {name: arg for name, arg in arguments.items() if arg is not None}))
    return found
