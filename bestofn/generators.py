"""Whatever draws candidates, behind one small protocol."""

import asyncio
import contextlib
import inspect
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any, Protocol, runtime_checkable

from bestofn import concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, load_engine
from bestofn.errors import ConfigError, EngineError, OtherProcessError
from bestofn.identity import identity_of
from bestofn.prompts import as_given, candidate_seed, clean, plain
from bestofn.registry import find, is_own, make
from bestofn.store.pool import as_candidate
from bestofn.types import Candidate, Prompt

GenerateFunction = Callable[
    [Any, int], Sequence[str | Candidate] | Awaitable[Sequence[str | Candidate]]
]


# A warning is due when more than this share of at least so many candidates have no answer.
MANY_LOST = 0.2
ENOUGH_DRAWN = 20


@runtime_checkable
class Generator(Protocol):
    """Draws candidates for one prompt, each yielded as soon as it is there."""

    def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        """`n` candidates with indices from `start` on, in the order in which they finish.

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
        self._drawn = 0
        self._lost_in_reasoning = 0
        self._warned = False

    def identity(self) -> dict[str, Any]:
        """What candidates depend on beside parameters and seed; see `bestofn.identity`."""
        return identity_of(self.engine)

    async def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        indices = range(start, start + n)
        tasks = [asyncio.create_task(self._draw_one(prompt, index)) for index in indices]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            await concurrency.cancel(tasks)

    async def _draw_one(self, prompt: Prompt, index: int) -> Candidate:
        seed = None if self.seed is None else candidate_seed(self.seed, prompt, index)
        try:
            completion = await self.engine.generate(prompt, self.params, seed)
        except OtherProcessError:
            raise
        except EngineError as error:
            return Candidate(index, "", finish_reason="error", error=str(error), seed=seed)
        self._watch(completion)
        return self._candidate(index, seed, completion)

    def _watch(self, completion: Completion) -> None:
        """Warns once if many candidates end before their answer begins."""
        self._drawn += 1
        cut = completion.finish_reason == "length" and completion.reasoning is not None
        self._lost_in_reasoning += cut and not completion.text.strip()
        often = self._lost_in_reasoning > MANY_LOST * self._drawn
        if often and self._drawn >= ENOUGH_DRAWN and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._lost_in_reasoning} of the first {self._drawn} candidates are cut inside "
                f"their reasoning, at max_tokens={self.params.max_tokens}, and have no answer; "
                "raise max_tokens, or switch reasoning off with "
                "with_options(chat_template_kwargs={'enable_thinking': False}), on the command "
                "line --engine-option 'chat_template_kwargs={enable_thinking: false}'",
                stacklevel=2,
            )

    def _candidate(self, index: int, seed: int | None, completion: Completion) -> Candidate:
        logprobs = completion.token_logprobs
        if logprobs and not all(map(isfinite, logprobs)):
            logprobs = None  # some servers give -inf, which no row can hold
        return Candidate(
            index=index,
            text=clean(completion.text),
            reasoning=None if completion.reasoning is None else clean(completion.reasoning),
            finish_reason=completion.finish_reason,
            # Some servers count the tokens without naming them.
            token_count=len(completion.token_ids) or completion.usage.generated_tokens,
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
    else a list of `{"role", "content"}` dictionaries. It is called once
    for each round of candidates.
    """

    def __init__(self, function: GenerateFunction) -> None:
        self.function = function

    def identity(self) -> dict[str, Any]:
        """What the function is called; see `bestofn.identity`."""
        return identity_of(self.function)

    async def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        try:
            responses = await self._call(as_given(prompt.messages), n)
        except ConfigError:
            raise
        except Exception as error:
            message = f"the generator failed: {type(error).__name__}: {error}"
            for index in range(start, start + n):
                yield Candidate(index, "", finish_reason="error", error=message)
            return
        if isinstance(responses, str | Mapping) or not isinstance(responses, Iterable):
            raise ConfigError(
                f"the generator must return responses, not {type(responses).__name__}"
            )
        drawn = list(responses)
        if len(drawn) != n:
            raise ConfigError(f"the generator was asked for {n} responses, gave {len(drawn)}")
        for index, response in enumerate(drawn, start):
            yield _as_candidate(index, response)

    async def _call(self, prompt: Any, n: int) -> Any:
        # An async callable is called here, anything else in a thread.
        call = getattr(self.function, "__call__", self.function)  # noqa: B004
        if inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call):
            return await self.function(prompt, n)  # type: ignore[misc]
        result = await asyncio.to_thread(self.function, prompt, n)
        return await result if inspect.isawaitable(result) else result


def as_generator(
    source: Engine | Generator | str | GenerateFunction,
    sampling: SamplingParams | None = None,
    seed: int | None = None,
    keep_tokens: bool = False,
) -> Generator:
    """What draws from an engine, a function, a generator, or whatever of these a spec names.

    Raises:
        ConfigError: it is none of them, or no engine and told how to sample.
    """
    if isinstance(source, str):
        source = own_generator(source, {}) or load_engine(source)
    if isinstance(source, Engine):
        return EngineGenerator(source, sampling or SamplingParams(), seed, keep_tokens)
    if not (isinstance(source, Generator) or callable(source)):
        raise ConfigError(
            f"{source!r} is no generator: give an engine, a spec such as 'tiny', a function, or an "
            "object with `draw`"
        )
    if sampling is not None or seed is not None or keep_tokens:
        raise ConfigError(
            "sampling, seed and keep_tokens are for engines; a function samples as it likes"
        )
    return source if isinstance(source, Generator) else FunctionGenerator(source)


def own_generator(spec: str, options: Mapping[str, Any]) -> Generator | GenerateFunction | None:
    """The user's own generator that a spec names, None where it names an engine.

    Args:
        spec: "package.module:Name" for a function `(prompt, n) -> responses`, or a class or object
            with `draw`; all else is an engine's.
        options: Arguments of a class.

    Raises:
        ConfigError: there is no such module or name, or it does not take the options.
    """
    if not is_own("engine", spec):
        return None
    found, _ = find("engine", spec)
    if hasattr(found, "generate"):
        return None
    own: Generator | GenerateFunction = make(f"the generator {spec!r}", found, [], options)
    return own


async def collect(draws: AsyncGenerator[Candidate]) -> list[Candidate]:
    """All candidates, by index."""
    async with contextlib.aclosing(draws):
        return sorted([candidate async for candidate in draws], key=lambda c: c.index)


def _as_candidate(index: int, response: str | Candidate) -> Candidate:
    """A copy of what a function returned, as rows can hold it: it may keep or repeat its own."""
    if isinstance(response, str):
        return Candidate(index, clean(response))
    if not isinstance(response, Candidate):
        found = type(response).__name__
        return _failed(index, f"the generator returned {found}, not a string or a Candidate")
    try:
        return as_candidate(_fields(response) | {"index": index})
    except ConfigError as error:
        return _failed(index, f"the generator returned a Candidate that cannot be used: {error}")


def _failed(index: int, error: str) -> Candidate:
    return Candidate(index, "", finish_reason="error", error=error)


def _fields(candidate: Candidate) -> dict[str, Any]:
    """The fields but for the scores; NaN and infinities are unknown."""
    known = {
        name: plain(getattr(candidate, name))
        for name in candidate.__slots__
        if name not in ("usage", "scores")
    }
    logprobs = known["token_logprobs"]
    if logprobs is not None and None in logprobs:
        known["token_logprobs"] = None
    usage = candidate.usage
    known["usage"] = {name: plain(getattr(usage, name)) or 0 for name in usage.__slots__}
    return known
