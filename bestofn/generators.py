"""Whatever draws candidates, behind one small protocol."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from statistics import fmean
from typing import Any, Protocol

from bestofn.engines.base import Completion, Engine, SamplingParams
from bestofn.errors import BestOfNError, ConfigError, EngineError
from bestofn.prompts import candidate_seed
from bestofn.types import Candidate, Prompt, Usage

GenerateFunction = Callable[
    [Any, int], Sequence[str | Candidate] | Awaitable[Sequence[str | Candidate]]
]


class Generator(Protocol):
    """Draws candidates for one prompt, each yielded as soon as it is there."""

    def draw(self, prompt: Prompt, n: int) -> AsyncGenerator[Candidate]:
        """`n` candidates with indices 0 to n - 1, in the order in which they finish.

        A candidate that cannot be drawn is yielded all the same, with its error.
        """
        ...


class EngineGenerator:
    """Draws from an engine, all candidates of a prompt at once.

    Args:
        engine: The model.
        params: How each candidate is drawn.
        seed: The run seed; None takes the engine's unseeded path.
        keep_tokens: Whether candidates keep their token ids and log-probabilities.
    """

    def __init__(
        self, engine: Engine, params: SamplingParams, seed: int | None, keep_tokens: bool
    ) -> None:
        self.engine = engine
        self.params = params
        self.seed = seed
        self.keep_tokens = keep_tokens

    async def draw(self, prompt: Prompt, n: int) -> AsyncGenerator[Candidate]:
        tasks = [asyncio.create_task(self._draw_one(prompt, index)) for index in range(n)]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for task in tasks:
                task.cancel()

    async def _draw_one(self, prompt: Prompt, index: int) -> Candidate:
        seed = None if self.seed is None else candidate_seed(self.seed, prompt, index)
        try:
            completion = await self.engine.generate(prompt, self.params, seed)
        except EngineError as error:
            return Candidate(index, "", finish_reason="error", error=str(error), seed=seed)
        return self._candidate(index, seed, completion)

    def _candidate(self, index: int, seed: int | None, completion: Completion) -> Candidate:
        logprobs = completion.token_logprobs
        return Candidate(
            index=index,
            text=completion.text,
            reasoning=completion.reasoning,
            finish_reason=completion.finish_reason,
            token_count=len(completion.token_ids),
            mean_logprob=fmean(logprobs) if logprobs else None,
            sum_logprob=sum(logprobs) if logprobs else None,
            seed=seed,
            token_ids=completion.token_ids if self.keep_tokens else None,
            token_logprobs=logprobs if self.keep_tokens else None,
            usage=completion.usage,
        )


class FunctionGenerator:
    """Draws from a function `(prompt, n) -> responses`, sync (run in a thread) or async.

    The function gets the prompt as it was given by its user: the text of a single user message,
    else a list of `{"role", "content"}` dictionaries.
    """

    def __init__(self, function: GenerateFunction) -> None:
        self.function = function

    async def draw(self, prompt: Prompt, n: int) -> AsyncGenerator[Candidate]:
        try:
            responses = await self._call(_plain(prompt), n)
        except BestOfNError:
            raise
        except Exception as error:
            message = f"the generator failed: {type(error).__name__}: {error}"
            for index in range(n):
                yield Candidate(index, "", finish_reason="error", error=message)
            return
        if isinstance(responses, str) or len(responses) != n:
            found = "a string" if isinstance(responses, str) else f"{len(responses)} responses"
            raise ConfigError(f"the generator was asked for a list of {n} responses, gave {found}")
        for index, response in enumerate(responses):
            yield _as_candidate(index, response)

    async def _call(self, prompt: Any, n: int) -> Sequence[str | Candidate]:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(prompt, n)  # type: ignore[no-any-return]
        result = await asyncio.to_thread(self.function, prompt, n)
        return await result if inspect.isawaitable(result) else result


def _plain(prompt: Prompt) -> Any:
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _as_candidate(index: int, response: str | Candidate) -> Candidate:
    if isinstance(response, str):
        return Candidate(index, response)
    if isinstance(response, Candidate):
        response.index = index
        return response
    return Candidate(
        index,
        "",
        finish_reason="error",
        error=f"the generator returned {type(response).__name__}, not a string or a Candidate",
        usage=Usage(),
    )
