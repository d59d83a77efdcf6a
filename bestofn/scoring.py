"""Setting a reward's scores on candidates, each distinct response scored once."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import chain, pairwise, zip_longest
from math import isfinite, nan
from typing import Protocol, runtime_checkable

from bestofn import concurrency
from bestofn.errors import ConfigError
from bestofn.types import Candidate, Prompt, Score, Usage


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


async def add_scores(prompt: Prompt, candidates: Sequence[Candidate], reward: RewardModel) -> None:
    """Sets the reward's scores on all candidates of a prompt; one that was not drawn has none."""
    if reward.pointwise:
        scoring = DistinctScoring(prompt, reward)
        try:
            for candidate in candidates:
                scoring.add(candidate)
            await scoring.finish()
        finally:
            await scoring.cancel()
        return
    drawn = [candidate for candidate in candidates if _is_asked(reward, candidate)]
    scores = await reward.score(prompt, drawn) if drawn else []
    for candidate, score in zip(drawn, scores, strict=True):
        candidate.scores[reward.name] = checked(score)
    for candidate in candidates:
        if not _is_asked(reward, candidate):
            candidate.scores[reward.name] = not_drawn(candidate)


async def add_nested_scores(
    prompt: Prompt, responses: Sequence[Sequence[Candidate]], reward: RewardModel
) -> None:
    """Sets a pointwise reward's scores on cuts of responses, each given from short to long.

    A cut is scored when all that come before it in their responses have been, so that an engine
    with a prefix cache computes only what a cut has more than the last; cuts at the same place
    that are equal are scored once.

    Raises:
        ConfigError: a cut is no beginning of the next one, or the reward compares candidates.
    """
    if not reward.pointwise:
        raise ConfigError(f"the reward {reward.name!r} compares candidates; cuts are no candidates")
    for cut, longer in chain.from_iterable(map(pairwise, responses)):
        # The last word may read otherwise once it is cut.
        if not longer.text.startswith(cut.text.rstrip("\ufffd").rstrip()):
            raise ConfigError("cuts of one response must be given from short to long")
    for level in zip_longest(*responses):
        await add_scores(prompt, [cut for cut in level if cut is not None], reward)


class DistinctScoring:
    """Pointwise scoring under way: one task for each distinct response."""

    def __init__(self, prompt: Prompt, reward: RewardModel) -> None:
        self.prompt = prompt
        self.reward = reward
        self._unscored: list[Candidate] = []
        self._paid = set[Hashable]()
        self._tasks: dict[Hashable, asyncio.Task[list[Score]]] = {}

    def add(self, candidate: Candidate) -> None:
        """Starts scoring the candidate, unless an equal one has been added before."""
        self._unscored.append(candidate)
        key = self._key(candidate)
        if key not in self._tasks and _is_asked(self.reward, candidate):
            scoring = self.reward.score(self.prompt, [candidate])
            self._tasks[key] = asyncio.ensure_future(scoring)

    async def finish(self) -> list[Candidate]:
        """Waits for the scores of what was added since the last call, and sets them.

        Of equal candidates the first one bears the cost.

        Returns:
            The candidates, by index.
        """
        candidates = sorted(self._unscored, key=lambda candidate: candidate.index)
        self._unscored.clear()
        for candidate in candidates:
            if not _is_asked(self.reward, candidate):
                candidate.scores[self.reward.name] = not_drawn(candidate)
                continue
            key = self._key(candidate)
            (score,) = await self._tasks[key]
            own = without_cost(score) if key in self._paid else score
            self._paid.add(key)
            candidate.scores[self.reward.name] = checked(own)
        return candidates

    async def cancel(self) -> None:
        await concurrency.cancel(self._tasks.values())

    def _key(self, candidate: Candidate) -> Hashable:
        distinct_by = getattr(self.reward, "distinct_by", None)
        return (candidate.error, candidate.text, distinct_by(candidate) if distinct_by else None)


def _is_asked(reward: RewardModel, candidate: Candidate) -> bool:
    """Whether a reward says something of the candidate, which may not have been drawn."""
    return candidate.finish_reason != "error" or getattr(reward, "takes_undrawn", False)


def not_drawn(candidate: Candidate) -> Score:
    """The score of a candidate without a response, whatever the reward."""
    return Score(reason=f"no response: {candidate.error}")


def checked(score: Score) -> Score:
    """A copy in which a value that is no finite number is a failure, with a reason.

    A reward may give one score to several candidates, or keep it. Its value may be numpy's.
    """
    value, reason = float(score.value), score.reason
    if not isfinite(value):
        value, reason = nan, reason or f"the reward gave {value}, which is no finite number"
    return replace(
        score,
        value=value,
        reason=reason,
        inferred=[*score.inferred],
        flags=[*score.flags],
        counts={**score.counts},
        usage=replace(score.usage),
    )


def without_cost(score: Score) -> Score:
    """A copy for another candidate or name; what it took is counted where it was paid."""
    return replace(checked(score), counts={}, usage=Usage())
