"""Verifiers of one's own, by import path."""

import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from bestofn.errors import ConfigError
from bestofn.identity import identity_of
from bestofn.types import Prompt
from bestofn.verifiers.base import Verifier


class Function(Verifier):
    """Any callable as a verifier; votes compare the stripped text."""

    def __init__(self, function: Callable[[Prompt, str], bool | float]) -> None:
        self.function = function

    def identity(self) -> dict[str, Any]:
        """What the function is called; see `bestofn.identity`."""
        return identity_of(self.function)

    def __call__(self, prompt: Prompt, response: str) -> bool | float:
        return self.function(prompt, response)


def load(module: str, path: str) -> Verifier:
    """The callable at `path` of a module; a class is instantiated without arguments.

    The working directory is looked into after all of the import path.

    Raises:
        ConfigError: the module cannot be imported, or has no such callable.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = reduce(getattr, path.split("."), import_module(module))
        verifier = found() if isinstance(found, type) else found
    except Exception as error:
        # A user's module may fail in any way while it is imported.
        raise ConfigError(
            f"{module}:{path} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not callable(verifier):
        raise ConfigError(f"{module}:{path} is not callable but {type(verifier).__name__}")
    return verifier if isinstance(verifier, Verifier) else Function(verifier)
