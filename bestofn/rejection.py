"""Ends a prompt's worst candidates while they are still being written."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, isnan, nan
from typing import Any

from bestofn import concurrency
from bestofn.engines.base import Completion, Watch
from bestofn.errors import ConfigError
from bestofn.generators import EngineGenerator
from bestofn.scoring import RewardModel, add_scores
from bestofn.thinking import is_half_a_tag
from bestofn.types import Candidate, Prompt, Score


@dataclass(frozen=True)
class EarlyRejection:
    """Scores candidates on what they have so far, and aborts the worst of them.

    At each checkpoint those that have so many tokens and have not ended are scored on exactly these
    tokens, as soon as all that can get there have. The best `keep` of them, rounded up, are kept,
    together with any that tie with the worst of those. A candidate is always kept if it has ended,
    or if its beginning has no score or is all reasoning. The decision depends on the texts alone,
    not on timing, and kept candidates are the same texts as without rejection. Source: Speculative
    Rejection (arXiv 2410.20290), which has one threshold at the moment that memory runs out.

    Args:
        at: Checkpoints, in generated tokens, rising.
        keep: The share kept at each checkpoint; 1 keeps all and scores nothing early.

    Raises:
        ConfigError: a value is out of its range.
    """

    at: tuple[int, ...] = (32, 64, 128)
    keep: float = 0.5

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1 or sorted(set(self.at)) != list(self.at):
            raise ConfigError(f"at must be rising numbers of tokens from 1 on, not {self.at}")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep must be above 0 and at most 1, not {self.keep}")

    def identity(self) -> dict[str, Any]:
        """What decisions depend on; see `bestofn.identity`."""
        return {"kind": type(self).__name__, "at": list(self.at), "keep": self.keep}

    def ends_any(self, count: int) -> bool:
        """Whether fewer than all of so many are kept, so that they have to be scored."""
        return self._kept(count) < count

    def _kept(self, count: int) -> int:
        # 0.55 of 20 are 11, though their product is a little more.
        return ceil(self.keep * count - 1e-9)

    def kept(self, values: Sequence[float]) -> list[bool]:
        """Which go on: the best of those with a score, and what equals the last of them.

        So does what has no score, NaN, as nothing is known of it.
        """
        scored = sorted((value for value in values if not isnan(value)), reverse=True)
        last = scored[self._kept(len(scored)) - 1] if scored else nan
        return [not value < last for value in values]


async def draw_rejecting(
    generator: EngineGenerator,
    prompt: Prompt,
    n: int,
    *,
    start: int,
    reward: RewardModel,
    rejection: EarlyRejection,
) -> AsyncGenerator[Candidate]:
    """`generator.draw`, of which the worst end early.

    One that was rejected is yielded with what it had at its last checkpoint, the finish reason
    "rejected" and a failed score of the reward that says why. Scores of beginnings are named
    "REWARD@TOKENS tokens".
    """
    race = _Race(generator, prompt, reward, rejection, range(start, start + n))
    tasks = [asyncio.create_task(race.run(index)) for index in race.indices]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        race.over = True
        await concurrency.cancel([*tasks, *race.tasks.values()])


class _Race:
    """The candidates of one prompt that are being written."""

    def __init__(
        self,
        generator: EngineGenerator,
        prompt: Prompt,
        reward: RewardModel,
        rejection: EarlyRejection,
        indices: Sequence[int],
    ) -> None:
        self.generator, self.prompt, self.reward = generator, prompt, reward
        self.rejection, self.indices = rejection, indices
        self.tasks: dict[int | str, asyncio.Task[Any]] = {}  # drawing, by index; "verdict"
        self._writing = set(indices)
        self._beginnings: dict[int, dict[int, Candidate]] = {index: {} for index in indices}
        self._rejected: dict[int, Candidate] = {}
        self._next = list(rejection.at)  # checkpoints that have no verdict yet
        self._verdict = asyncio.Condition()
        self._error: Exception | None = None  # of a verdict
        self.over = False  # nothing more is asked

    async def run(self, index: int) -> Candidate:
        """The candidate as it ended, or as it was at the checkpoint at which it was rejected."""
        watch = Watch(self.rejection.at, partial(self._reached, index))
        drawing = asyncio.create_task(self.generator.draw_one(self.prompt, index, watch))
        self.tasks[index] = drawing
        await asyncio.wait([drawing])
        self._writing.discard(index)
        self._advance()
        beginnings = self._beginnings[index]
        async with self._verdict:
            await self._verdict.wait_for(
                lambda: (
                    self._error is not None
                    or index in self._rejected
                    or not set(beginnings) & set(self._next)
                )
            )
        if self._error is not None:
            raise self._error
        if (candidate := self._rejected.get(index)) is not None:
            if drawing.cancelled():
                candidate.usage = replace(candidate.usage, generated_tokens=watch.generated)
            else:  # it had ended when the verdict came
                candidate.usage = drawing.result().usage
        else:
            candidate = drawing.result()
        for at, beginning in beginnings.items():
            if self.reward.name in beginning.scores and beginning is not candidate:
                candidate.scores[self._named(at)] = beginning.scores[self.reward.name]
        return candidate

    def _named(self, at: int) -> str:
        """What a beginning's score is called; "REWARD@TOKENS" are those of `score --limits`."""
        return f"{self.reward.name}@{at} tokens"

    def _reached(self, index: int, at: int, completion: Completion) -> None:
        if index not in self._rejected and not self.over:
            beginning = self.generator.candidate(self.prompt, index, completion)
            self._beginnings[index][at] = beginning
            self._advance()

    def _advance(self) -> None:
        """Asks for the next verdict once all that can get to its checkpoint have."""
        asked = self.tasks.get("verdict")
        if self.over or not self._next or (asked is not None and not asked.done()):
            return
        if all(self._next[0] in self._beginnings[index] for index in self._writing):
            self.tasks["verdict"] = asyncio.create_task(self._judge(self._next[0]))

    async def _judge(self, at: int) -> None:
        try:
            await self._decide(at)
        except Exception as error:
            self._error, self.over = error, True
            for index in self._writing:
                self.tasks[index].cancel()
        async with self._verdict:
            self._next.pop(0)
            self._verdict.notify_all()
        self.tasks.pop("verdict")
        self._advance()

    async def _decide(self, at: int) -> None:
        running = [i for i in self.indices if i not in self._rejected and at in self._beginnings[i]]
        beginnings = [self._beginnings[index][at] for index in running]
        if self.rejection.ends_any(len(running)):
            # What is still all reasoning says nothing of the answer.
            answering = [b for b in beginnings if b.text.strip() and not is_half_a_tag(b.text)]
            await add_scores(self.prompt, answering, self.reward)
            values = [self._value(beginning) for beginning in beginnings]
            verdict = zip(running, beginnings, self.rejection.kept(values), strict=True)
            for index, beginning, kept in verdict:
                if not kept:
                    self._reject(index, beginning, at, values)

    def _value(self, beginning: Candidate) -> float:
        score = beginning.scores.get(self.reward.name)
        return nan if score is None else score.value

    def _reject(self, index: int, beginning: Candidate, at: int, values: list[float]) -> None:
        score = beginning.scores.pop(self.reward.name)
        better = sum(value > score.value for value in values)
        place = f"{better} of {len(values)} had more"
        reason = f"rejected at {at} tokens with {score.value:.3g}, as {place}"
        beginning.finish_reason = "rejected"
        beginning.scores[self._named(at)] = score
        beginning.scores[self.reward.name] = Score(reason=reason)
        self._rejected[index] = beginning
        self._writing.discard(index)
        self.tasks[index].cancel()
