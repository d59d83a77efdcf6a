"""`python -m bestofn`."""

from bestofn.cli import run

run()
