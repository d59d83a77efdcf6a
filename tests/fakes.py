"""An engine whose answers are scripted and a reward by a table, for what is not about a model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any, Self

from bestofn import concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores
from bestofn.scoring import RewardModel, add_scores
from bestofn.types import Candidate, Prompt, Score, Usage

END = 1_000_000
Answer = Callable[[Prompt, SamplingParams, int | None], str | Exception]


class ScriptedEngine(Engine):
    """Answers `generate` by a function, and `loglikelihood` by minus the length."""

    name = "scripted"
    default_template = "direct"

    def __init__(
        self,
        answer: Answer | str = "an answer",
        *,
        delay: Callable[[Prompt], float] = lambda _: 0.0,
        finish_reason: str = "stop",
        logprobs: bool = True,
        template: str = "direct",
        reasoning: str | None = None,
    ) -> None:
        self.answer = answer
        self.delay = delay
        self.finish_reason = finish_reason
        self.logprobs = logprobs
        self.default_template = template
        self.reasoning = reasoning
        self.generated: list[Prompt] = []
        self.scored: list[tuple[Prompt, str]] = []
        self.seeds: list[int | None] = []
        self.words: list[str] = []
        self.running = 0
        self.most_running = 0
        self.aborted = 0

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        self.generated.append(prompt)
        self.seeds.append(seed)
        text = self.answer if isinstance(self.answer, str) else self.answer(prompt, params, seed)
        await self._work(prompt)
        if isinstance(text, Exception):
            raise text
        ids = [self._token(word) for word in text.split()] + [END]
        return Completion(
            text=text,
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,  # type: ignore[arg-type]
            token_ids=ids,
            token_logprobs=[-0.5] * len(ids) if self.logprobs else None,
            usage=Usage(prompt_tokens=10, generated_tokens=len(ids), seconds=0.1),
        )

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        self.scored.append((prompt, continuation))
        await self._work(prompt)
        length = float(len(prompt.messages[-1].content))
        return TokenScores([1, 2], [-length, -length], Usage(prompt_tokens=10, scored_tokens=2))

    def _token(self, word: str) -> int:
        """A token is a word."""
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        return None, " ".join(self.words[token] for token in token_ids if token != END)

    async def _work(self, prompt: Prompt) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay(prompt))
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    def with_options(self, **options: Any) -> Self:
        return self


class Recorded:
    """A reward that scores by a table, and remembers what it was asked when."""

    name = "recorded"

    def __init__(self, values: dict[str, float] | None = None, pointwise: bool = True) -> None:
        self.values = values or {}
        self.pointwise = pointwise
        self.asked: list[list[str]] = []

    async def score(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Score]:
        self.asked.append([candidate.text for candidate in candidates])
        values = [self.values.get(candidate.text, 0.0) for candidate in candidates]
        return [Score(v, "failed" if isnan(v) else None) for v in values]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def scores_of(reward: RewardModel, candidates: Sequence[Candidate], prompt: Prompt) -> list[Score]:
    """The scores that a reward gives, as a sampler asks for them."""
    concurrency.run(add_scores(prompt, candidates, reward))
    return [candidate.scores[reward.name] for candidate in candidates]


def repeated(prompt: Prompt, *_: object) -> str:
    """What a model infers that takes whatever it reads for the instruction."""
    text = prompt.messages[-1].content
    return text.removeprefix("Response:\n").removesuffix("\n\nInstruction:")
