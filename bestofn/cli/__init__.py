"""The command line: parse, call, print."""

import signal
import sys

from bestofn.cli import ask, audit, batch, experiments, rewardbench
from bestofn.cli.app import app

__all__ = ["app", "ask", "audit", "batch", "experiments", "rewardbench", "run"]


def run() -> None:
    """The console script."""
    # A scheduler's request to end is an exit like any other: engines' processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(app())
