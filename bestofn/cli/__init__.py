"""The command line: parse, call, print."""

import signal
import sys
import warnings

from bestofn.cli import ask, doctor, evals, pool, select, serve
from bestofn.cli.app import app

__all__ = ["app", "ask", "doctor", "evals", "pool", "run", "select", "serve"]


def run() -> None:
    """The console script."""
    # A scheduler's request to end is an exit like any other: engines' processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.exit(app())
