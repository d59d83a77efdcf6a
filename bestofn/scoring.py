"""Setting a reward's scores on candidates, each distinct response scored once."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import isfinite, nan
from typing import Protocol, runtime_checkable

from bestofn import concurrency
from bestofn.types import Candidate, Prompt, Score


@runtime_checkable
class RewardModel(Protocol):
    """Scores candidates of one prompt.

    A pointwise reward says of each candidate what it would say of it alone: it is given each as
    soon as it is drawn, and of equal responses only one. If its score depends on more than the
    response, a method `distinct_by(candidate)` says on what. A setwise reward is given all
    candidates. A candidate that could not be drawn has a failed score without the reward being
    asked, unless the reward's attribute `takes_undrawn` is true.
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
    """Sets the reward's scores on all candidates of a prompt."""
    scoring = Scoring(prompt, reward)
    try:
        for candidate in candidates:
            scoring.add(candidate)
        await scoring.finish()
    finally:
        await scoring.cancel()


async def add_nested_scores(
    prompt: Prompt, responses: Sequence[Sequence[Candidate]], reward: RewardModel
) -> None:
    """Sets a pointwise reward's scores on cuts of responses, each given from short to long.

    Shorter ones are scored first, so that a prefix cache has all that a cut has in common with one.
    """
    for level in zip_longest(*responses):
        await add_scores(prompt, [cut for cut in level if cut is not None], reward)


class Scoring:
    """A prompt's candidates on the way to their scores: a task for each distinct response."""

    def __init__(self, prompt: Prompt, reward: RewardModel) -> None:
        self.prompt = prompt
        self.reward = reward
        self._unscored: list[Candidate] = []
        self._paid = set[Hashable]()
        self._tasks: dict[Hashable, asyncio.Task[list[Score]]] = {}

    def add(self, candidate: Candidate) -> None:
        """Takes a candidate in, which has a score after the next `finish`."""
        self._unscored.append(candidate)
        key = self._key(candidate)
        if self.reward.pointwise and self._is_asked(candidate) and key not in self._tasks:
            scoring = self.reward.score(self.prompt, [candidate])
            self._tasks[key] = asyncio.ensure_future(scoring)

    async def finish(self) -> list[Candidate]:
        """Sets the scores of what was added since the last call, and returns it by index.

        Of equal candidates the first one bears the cost.
        """
        candidates = sorted(self._unscored, key=lambda candidate: candidate.index)
        self._unscored.clear()
        asked = [candidate for candidate in candidates if self._is_asked(candidate)]
        if self.reward.pointwise:
            scores = [await self._score_of(self._key(candidate)) for candidate in asked]
        else:
            scores = await self.reward.score(self.prompt, asked) if asked else []
        for candidate in candidates:
            candidate.scores[self.reward.name] = Score(reason=_no_response(candidate))
        for candidate, score in zip(asked, scores, strict=True):
            candidate.scores[self.reward.name] = _checked(score)
        return candidates

    async def _score_of(self, key: Hashable) -> Score:
        (score,) = await self._tasks[key]
        if key in self._paid:
            return without_cost(score)
        self._paid.add(key)
        return score

    def _is_asked(self, candidate: Candidate) -> bool:
        return candidate.whole or getattr(self.reward, "takes_undrawn", False)

    def _key(self, candidate: Candidate) -> Hashable:
        distinct_by = getattr(self.reward, "distinct_by", None)
        return (candidate.error, candidate.text, distinct_by(candidate) if distinct_by else None)

    async def cancel(self) -> None:
        await concurrency.cancel(self._tasks.values())


def _no_response(candidate: Candidate) -> str:
    return f"no response: {candidate.error}" if candidate.error else "rejected before its end"


def _checked(score: Score) -> Score:
    """A copy, as a reward may keep its own; a value that is no finite number is a failure."""
    value, reason = float(score.value), score.reason  # it may be numpy's
    if not isfinite(value):
        value, reason = nan, reason or f"the reward gave {value}, which is no finite number"
    copied = replace(without_cost(score), value=value, reason=reason, counts={**score.counts})
    copied.usage = replace(score.usage)
    return copied


def without_cost(score: Score) -> Score:
    """A copy for another candidate or name; what it took is counted where it was paid."""
    return Score(score.value, score.reason, [*score.inferred], [*score.flags])
