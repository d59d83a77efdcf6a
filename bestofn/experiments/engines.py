"""How the progress of a run is shown; its models are those of `bestofn.models`."""

from collections.abc import Callable, Iterator

from bestofn.models import Engines as Engines
from bestofn.types import Pool

Progress = Callable[[Iterator[Pool], int | None, str], Iterator[Pool]]
"""Passes pools on and shows how far they are, of how many, and what is being done."""


def silent(pools: Iterator[Pool], *_: object) -> Iterator[Pool]:
    """Shows nothing."""
    return pools
