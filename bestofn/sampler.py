"""BestOfN: draw candidates, score each as it lands, choose the best."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sized
from dataclasses import replace
from functools import partial
from math import isnan
from operator import attrgetter

from bestofn import concurrency
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import ConfigError
from bestofn.generators import EngineGenerator, GenerateFunction, Generator, as_generator
from bestofn.progress import with_progress
from bestofn.prompts import PromptLike, as_prompt
from bestofn.rejection import EarlyRejection, draw_rejecting
from bestofn.scoring import RewardModel, Scoring
from bestofn.selectors import Best, Selector
from bestofn.stopping import ExpectedGain
from bestofn.types import Candidate, Pool, Prompt, Selection, Usage

BEST = Best()


def _ignore(candidate: Candidate) -> None:
    pass


class BestOfN:
    """Draws `n` candidates for a prompt and selects the one that the reward prefers.

    Args:
        generator: An engine, a function `(prompt, n) -> responses`, sync or async, that returns
            strings or Candidates, an object with `draw`, or a spec of one of these such as "tiny".
        reward: Scores the candidates. A pointwise one gets each as soon as it is drawn.
        n: Candidates for each prompt; with `stop` the most of them.
        sampling: How an engine draws; the default is temperature 1 and at most 512 tokens.
        seed: With a run seed each candidate has a seed of its own, made from the run seed, the
            prompt's id and its index. Without one the engine takes its fast path.
        keep_tokens: Keep token ids and their log-probabilities on the candidates.
        window: Prompts in flight in `select_many`; by default enough for 512 candidates, and
            fewer where a prompt takes longer than 20 s.
        stop: Draws a prompt's candidates in rounds, and says after each whether that is enough.
            With a seed they are the first of those that a run without `stop` draws.
        round_size: Candidates that are drawn at once, with `stop`. Smaller rounds waste fewer
            candidates; larger ones wait less often.
        reject: Ends the worst candidates while they are being written. With `stop` those of a round
            compete with each other, and a rejected one counts as a draw of the lowest score.
        budget: Tokens that a prompt's candidates may have together, of an engine. Each is allowed
            `max_tokens`, so as many are drawn as would fit if all were that long, then as many as
            fit into what these left; `n` is the most.
        selector: Chooses by the scores, see `bestofn.selectors`; by default the highest one.

    Raises:
        ConfigError: an argument makes no sense.
    """

    def __init__(
        self,
        generator: Engine | Generator | str | GenerateFunction,
        reward: RewardModel,
        *,
        n: int,
        sampling: SamplingParams | None = None,
        seed: int | None = None,
        keep_tokens: bool = False,
        window: int | None = None,
        stop: ExpectedGain | None = None,
        round_size: int = 4,
        selector: Selector | None = None,
        reject: EarlyRejection | None = None,
        budget: int | None = None,
    ) -> None:
        sizes = {"n": n, "round_size": round_size, "window": window, "budget": budget}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not isinstance(reward, RewardModel):
            raise ConfigError(f"{reward!r} is no reward: it needs `name`, `pointwise` and `score`")
        if stop is not None and not reward.pointwise:
            raise ConfigError(
                f"the reward {reward.name!r} compares candidates, so its scores change as more are "
                "drawn; leave out `stop` or take a pointwise reward such as FLIPReward"
            )
        if stop is not None and type(selector or BEST) is not Best:
            raise ConfigError("`stop` expects the highest score to be chosen; leave out `selector`")
        self.generator = as_generator(generator, sampling, seed, keep_tokens)
        self.reward = reward
        self.n = n
        if reject is not None:
            self._check_rejection()
        self.stop = stop
        self.reject = None if reject is None or reject.keep == 1 else reject
        self.selector = selector or BEST
        self.budget = budget
        if budget is not None and not isinstance(self.generator, EngineGenerator):
            raise ConfigError("`budget` needs an engine, whose candidates have at most max_tokens")
        if budget is not None and budget < self._longest:
            raise ConfigError(f"`budget` must be at least max_tokens, which is {self._longest}")
        self.round_size = n if stop is None else min(n, round_size)
        self._window = window

    def _check_rejection(self) -> None:
        if not self.reward.pointwise:
            raise ConfigError(
                f"the reward {self.reward.name!r} compares candidates, so it cannot score the "
                "beginning of one; leave out `reject` or take a pointwise reward"
            )
        drawn_by = self.generator
        if not (isinstance(drawn_by, EngineGenerator) and drawn_by.engine.shows_unfinished):
            raise ConfigError(
                "`reject` needs an engine that shows unfinished responses, such as 'vllm:MODEL', "
                "'hf:MODEL' or 'openai:URL#MODEL'"
            )

    @property
    def window(self) -> concurrency.Window:
        """Prompts in flight in a run that begins now."""
        return concurrency.Window(self.round_size, self._window)

    def select(self, prompt: PromptLike) -> Selection:
        """The best response to one prompt.

        Raises:
            ConfigError: the prompt is empty or malformed.
        """
        return concurrency.run(self._select(as_prompt(prompt)))

    async def aselect(
        self, prompt: PromptLike, *, on_candidate: Callable[[Candidate], None] | None = None
    ) -> Selection:
        """`select` for use inside an event loop.

        `on_candidate` is called with each candidate as it is drawn, before it has its score, on the
        package's event loop.
        """
        return await concurrency.on_background_loop(
            self._select(as_prompt(prompt), on_candidate or _ignore)
        )

    def select_many(
        self, prompts: Iterable[PromptLike], *, progress: bool = True
    ) -> Iterator[Selection]:
        """Selections in the order of the prompts, which are read as they are needed.

        With `progress` a bar is shown, or where standard error is a file a line every half minute
        and one at the end.

        Raises:
            ConfigError: a prompt is empty or malformed; the selections before it come first.
        """
        selections = concurrency.map_in_window(self._select, _numbered(prompts), self.window)
        total = len(prompts) if isinstance(prompts, Sized) else None
        return with_progress(selections, total) if progress else selections

    def aselect_many(self, prompts: Iterable[PromptLike]) -> AsyncGenerator[Selection]:
        """`select_many` for use inside an event loop, without a progress bar."""
        return concurrency.amap_in_window(self._select, _numbered(prompts), self.window)

    async def _select(
        self, prompt: Prompt, on_candidate: Callable[[Candidate], None] = _ignore
    ) -> Selection:
        """Draws rounds of candidates, each scored while its siblings are still being drawn."""
        started = time.perf_counter()
        scoring = Scoring(prompt, self.reward)
        candidates: list[Candidate] = []
        try:
            start = 0
            while size := self._next_round(start, candidates):
                async with contextlib.aclosing(self._draw(prompt, size, start)) as draws:
                    async for candidate in draws:
                        on_candidate(candidate)
                        if self.reject is not None and candidate.finish_reason == "rejected":
                            candidates.append(candidate)
                        else:
                            scoring.add(candidate)
                candidates = sorted([*candidates, *await scoring.finish()], key=attrgetter("index"))
                start += size
        finally:
            await scoring.cancel()
        chosen = partial(choose, prompt, candidates, self.reward.name, selector=self.selector)
        # Others may compare all texts or ask a verifier for answers, so they run in a thread.
        quick = type(self.selector) is Best
        selection = chosen() if quick else await asyncio.to_thread(chosen)
        parts = [c.usage for c in candidates]
        parts += [score.usage for c in candidates for score in c.scores.values()]
        selection.usage = replace(sum(parts, Usage()), seconds=time.perf_counter() - started)
        return selection

    def _draw(self, prompt: Prompt, n: int, start: int) -> AsyncGenerator[Candidate]:
        if self.reject is None:
            return self.generator.draw(prompt, n, start=start)
        assert isinstance(self.generator, EngineGenerator)
        return draw_rejecting(
            self.generator, prompt, n, start=start, reward=self.reward, rejection=self.reject
        )

    def _next_round(self, asked: int, candidates: list[Candidate]) -> int:
        """How many more to draw now."""
        size = min(self.round_size, self.n - asked)
        if self.budget is not None:
            spent = sum(candidate.usage.generated_tokens for candidate in candidates)
            size = min(size, (self.budget - spent) // self._longest)
        if self.stop is not None and candidates and size:
            values = [candidate.scores[self.reward.name].value for candidate in candidates]
            size *= not self.stop.stops(values)[-1]
        return max(0, size)

    @property
    def _longest(self) -> int:
        """Tokens that a candidate can have."""
        assert isinstance(self.generator, EngineGenerator)
        return self.generator.params.max_tokens


def by_rank(pool: Pool, reward: str) -> list[Candidate]:
    """The candidates by their scores, best first; failed scores last, errors behind them."""

    def place(candidate: Candidate) -> tuple[bool, bool, float, int]:
        value = candidate.scores[reward].value
        return candidate.error is not None, isnan(value), -value, candidate.index

    return sorted(pool.candidates, key=place)


def choose(
    prompt: Prompt,
    candidates: list[Candidate],
    reward: str,
    usage: Usage | None = None,
    selector: Selector = BEST,
) -> Selection:
    """The selection by the scores that the candidates have under the name `reward`.

    By default the highest value wins, ties go to the lowest index, a failed score loses to any
    value. When none can be chosen, as every score failed, the first response is taken; when every
    candidate failed, there is an error.
    """
    values = [candidate.scores[reward].value for candidate in candidates]
    index, tie = selector.choose(prompt, candidates, values)
    first = next((place for place, candidate in enumerate(candidates) if candidate.whole), 0)
    errors = [candidate.error for candidate in candidates if candidate.error is not None]
    failed = len(errors) == len(candidates)
    if not failed and errors and not any(candidate.whole for candidate in candidates):
        errors, failed = [f"{errors[0]}; the others had been rejected"], True
    return Selection(
        prompt=prompt,
        candidates=candidates,
        index=first if index is None else index,
        reward=reward,
        tie=tie,
        fallback=index is None,
        error=f"all {len(errors)} candidates failed: {errors[0]}" if failed else None,
        usage=usage or Usage(),
    )


def _numbered(prompts: Iterable[PromptLike]) -> Iterator[Prompt]:
    """The prompts; the error of one that cannot be used says which it is."""
    if isinstance(prompts, str | Prompt):
        raise ConfigError("this takes several prompts; use `select` for one")

    def read() -> Iterator[Prompt]:
        for number, prompt in enumerate(prompts):
            try:
                yield as_prompt(prompt)
            except ConfigError as error:
                raise ConfigError(f"prompt {number} (counted from 0): {error}") from None

    return read()
