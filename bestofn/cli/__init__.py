"""The command line: parse, call, print."""

import signal
import sys
import warnings
from pathlib import Path

from bestofn.cli import ask, audit, batch, experiments, rewardbench
from bestofn.cli.app import app

__all__ = ["app", "ask", "audit", "batch", "experiments", "rewardbench", "run"]

_PACKAGE = str(Path(__file__).parents[1])
_with_source = warnings.formatwarning


def run() -> None:
    """The console script."""
    # A scheduler's request to end is an exit like any other: engines' processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    warnings.formatwarning = _format_warning
    sys.exit(app())


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """The package's own warnings as one sentence, others with their source."""
    if filename.startswith(_PACKAGE):
        return f"warning: {message}\n"
    return _with_source(message, category, filename, lineno, line)
