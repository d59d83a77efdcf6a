"""The one protocol of rewards."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from bestofn.types import Candidate, Prompt, Score


@runtime_checkable
class RewardModel(Protocol):
    """Scores candidates of one prompt.

    A pointwise reward says of each candidate what it would say of it alone: it may be given any
    part of the candidates, each as soon as it is drawn, and of equal responses only one. If its
    score depends on more than the response, a method `distinct_by(candidate)` says on what. A
    setwise reward is given all candidates. A candidate that could not be drawn has a failed score
    without the reward being asked, unless the reward's attribute `takes_undrawn` is true.
    """

    name: str
    """Names the scores on a candidate."""
    pointwise: bool

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        """One Score for each candidate, in their order.

        What goes wrong with a candidate is a NaN score with a reason, never an exception.
        """
        ...
