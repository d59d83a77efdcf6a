"""Whatever draws candidates, behind one small protocol."""

import asyncio
import contextlib
import inspect
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any, Protocol, runtime_checkable

from bestofn import concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, Watch, load_engine
from bestofn.errors import ConfigError, EngineError, OtherProcessError
from bestofn.identity import identity_of
from bestofn.prompts import as_given, candidate_seed, clean, plain
from bestofn.registry import find, is_own, make
from bestofn.schemas import check_json
from bestofn.store.pool import as_candidate
from bestofn.tools import as_calls, called, read_calls, with_calls
from bestofn.types import Candidate, Prompt, Usage

GenerateFunction = Callable[
    [Any, int], Sequence[str | Candidate] | Awaitable[Sequence[str | Candidate]]
]

# A warning is due when more than this share of at least so many candidates have no answer.
MANY_LOST, ENOUGH_DRAWN = 0.2, 20


@runtime_checkable
class Generator(Protocol):
    """Draws candidates for one prompt."""

    def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        """`n` candidates with indices from `start` on, each as soon as it is there.

        One that cannot be drawn is yielded all the same, with its error.
        """
        ...


@dataclass(eq=False)
class EngineGenerator:
    """Draws from an engine, all candidates of a prompt at once."""

    engine: Engine
    params: SamplingParams
    seed: int | None  # of the run; None takes the engine's unseeded path
    keep_tokens: bool  # whether candidates keep their token ids and log-probabilities

    def __post_init__(self) -> None:
        """What has to be written in a form is held to it where the engine can do so."""
        if self.params.json_schema is not None or self.params.tool_choice != "auto":
            with contextlib.suppress(ConfigError):
                self.engine = self.engine.with_options(guided=True)

    _drawn = _lost = 0
    _warned = False

    def identity(self) -> dict[str, Any]:
        """What candidates depend on beside parameters and seed; see `bestofn.identity`."""
        return identity_of(self.engine)

    async def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        indices = range(start, start + n)
        tasks = [asyncio.create_task(self.draw_one(prompt, index)) for index in indices]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            await concurrency.cancel(tasks)

    async def draw_one(self, prompt: Prompt, index: int, watch: Watch | None = None) -> Candidate:
        """One candidate, with its error if it cannot be drawn; `watch` looks at it on the way."""
        seed = self._seed(prompt, index)
        try:
            if watch is None:
                completion = await self.engine.generate(prompt, self.params, seed)
            else:
                completion = await self.engine.generate_watched(prompt, self.params, seed, watch)
        except OtherProcessError:
            raise
        except EngineError as error:
            return Candidate(index, "", finish_reason="error", error=str(error), seed=seed)
        self._watch(completion)
        return self._formed(prompt, self.candidate(prompt, index, completion), completion)

    def _formed(self, prompt: Prompt, candidate: Candidate, completion: Completion) -> Candidate:
        """The candidate with its calls of tools, or an error if it lacks the form asked for."""
        params, content, written = self.params, candidate.text, completion.tool_calls or []
        wrong, cut = None, candidate.finish_reason == "length"
        if prompt.tools and not written:
            content, written = read_calls(content, prompt.tools)
        try:
            if written:
                key = f"{prompt.id}\x1f{candidate.index}"
                candidate.tool_calls = as_calls(written, prompt.tools, key)
                candidate.text = with_calls(content, candidate.tool_calls)
                if len(written) > 1 and not params.parallel_tool_calls:
                    wrong = f"it has {len(written)} calls of tools, and may have one"
            choice = params.tool_choice if prompt.tools else "auto"
            if choice not in ("auto", "required", *called(candidate)):
                wrong = f"it does not call the tool {choice!r}"
            elif choice == "required" and not written:
                wrong = "it calls no tool"
            elif params.json_schema is not None and not written:
                wrong = check_json(candidate.text, params.json_schema)
        except ConfigError as error:
            wrong = str(error)
        if wrong is not None:
            limit = f", cut after {candidate.token_count} tokens" if cut else ""
            candidate.finish_reason, candidate.error = "error", f"the response{limit}: {wrong}"
            candidate.tool_calls = None
        return candidate

    def _seed(self, prompt: Prompt, index: int) -> int | None:
        return None if self.seed is None else candidate_seed(self.seed, prompt, index)

    def candidate(self, prompt: Prompt, index: int, completion: Completion) -> Candidate:
        """The candidate that a completion is."""
        confidence = self.params.confidence
        logprobs, confidences = completion.token_logprobs, completion.token_confidences
        if confidences and not all(map(isfinite, confidences)):
            confidences = None
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
            seed=self._seed(prompt, index),
            token_ids=completion.token_ids if self.keep_tokens else None,
            token_logprobs=logprobs if self.keep_tokens else None,
            token_confidences=confidences,
            confidence_over=None if confidence == "all" else confidence,
            usage=completion.usage,
        )

    def _watch(self, completion: Completion) -> None:
        """Warns once if many candidates end before their answer begins."""
        self._drawn += 1
        cut = completion.finish_reason == "length" and completion.reasoning is not None
        self._lost += cut and not completion.text.strip()
        often = self._drawn >= ENOUGH_DRAWN and self._lost > MANY_LOST * self._drawn
        if often and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._lost} of the first {self._drawn} candidates are cut inside "
                f"their reasoning, at max_tokens={self.params.max_tokens}, and have no answer; "
                "raise max_tokens, or switch reasoning off with "
                "with_options(chat_template_kwargs={'enable_thinking': False}), on the command "
                "line --engine-option 'chat_template_kwargs={enable_thinking: false}'",
                stacklevel=2,
            )


@dataclass(eq=False)
class FunctionGenerator:
    """Draws from a function `(prompt, n) -> responses`, sync or async; its calls run in threads.

    It is given the text of a single user message, else `{"role", "content"}` dictionaries, and is
    called once for each round of candidates.
    """

    function: GenerateFunction

    def identity(self) -> dict[str, Any]:
        """What the function is called; see `bestofn.identity`."""
        return identity_of(self.function)

    async def draw(self, prompt: Prompt, n: int, *, start: int = 0) -> AsyncGenerator[Candidate]:
        try:
            responses: Any = await asyncio.to_thread(self.function, as_given(prompt.messages), n)
            if inspect.isawaitable(responses):
                responses = await responses
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


def _as_candidate(index: int, response: str | Candidate) -> Candidate:
    """A copy of what a function returned, as rows can hold it; NaN and infinities are unknown."""
    if isinstance(response, str):
        return Candidate(index, clean(response))
    try:
        if not isinstance(response, Candidate):
            raise ConfigError(f"{type(response).__name__}, not a string or a Candidate")
        known = set(Candidate.__slots__) - {"scores", "usage"}
        fields = {name: plain(getattr(response, name)) for name in known}
        for name in ("token_logprobs", "token_confidences"):
            if None in (fields[name] or ()):
                fields[name] = None
        spent = {name: plain(getattr(response.usage, name)) or 0 for name in Usage.__slots__}
        if fields["tool_calls"] and not fields["text"].endswith(
            with_calls("", fields["tool_calls"])
        ):
            fields["text"] = with_calls(fields["text"], fields["tool_calls"])
        return as_candidate(fields | {"index": index, "usage": spent})
    except ConfigError as error:
        message = f"a response of the generator cannot be used: {error}"
        return Candidate(index, "", finish_reason="error", error=message)


def as_generator(
    source: Engine | Generator | str | GenerateFunction,
    sampling: SamplingParams | None = None,
    seed: int | None = None,
    keep_tokens: bool = False,
) -> Generator:
    """What draws from an engine, a function, a generator, or whatever of these a spec names."""
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
    """The user's own function, object or class with these options; None of an engine's spec."""
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
