"""What requests ask of the models: a plan made from each, its selection, and what went wrong."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bestofn import concurrency
from bestofn.config.parts import RewardConfig, reward_fields
from bestofn.config.serving import Limits, ServeConfig
from bestofn.dataset.select import check, check_weights, loaded
from bestofn.engines.base import Engine, SamplingParams
from bestofn.errors import BestOfNError, ConfigError, ContextLengthError, EngineError
from bestofn.generators import EngineGenerator
from bestofn.prompts import as_prompt
from bestofn.registry import is_own
from bestofn.rejection import EarlyRejection
from bestofn.rewards.base import load_reward, needs_engine, reads_confidence
from bestofn.sampler import BestOfN
from bestofn.scoring import RewardModel, add_scores
from bestofn.section import checked
from bestofn.selectors import Selector, load_selector
from bestofn.serve.requests import (
    ChatRequest,
    Rejection,
    RequestError,
    ScoreRequest,
    as_refusal,
    check_size,
    split_model,
)
from bestofn.tools import as_tools, check_schema
from bestofn.types import Candidate, Pool, Prompt, Selection

PATIENCE = 5.0  # seconds that an engine gets to show that it works
FRESH = 1.0  # seconds for which the last answer of an engine counts
PENALTIES = ("presence_penalty", "frequency_penalty")
OWN_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Plan:
    """What a request comes to."""

    best: BestOfN
    prompt: Prompt
    choices: int  # how many of the candidates it wants, by rank


class Service:
    """The models behind the server.

    Args:
        config: Of the server.
        best: Draws and selects by default.
        rewards: Those that requests may name.
    """

    def __init__(
        self, config: ServeConfig, best: BestOfN, rewards: Mapping[str, RewardModel]
    ) -> None:
        self.config, self.best, self.rewards = config, best, rewards
        drawn_by = best.generator
        self.engine = drawn_by.engine if isinstance(drawn_by, EngineGenerator) else None
        served = getattr(self.engine, "model", None)  # as a server calls it
        full = served if isinstance(served, str) else config.engine.rpartition(":")[2]
        self.name = config.model_name or full.rstrip("/").rpartition("/")[2]
        scorers = [getattr(reward, "engine", None) for reward in rewards.values()]
        self._engines = [e for e in dict.fromkeys([self.engine, *scorers]) if isinstance(e, Engine)]
        self._checked, self._failure = -FRESH, ""

    def models(self) -> list[str]:
        """What `model` may be in a request, with some numbers of candidates."""
        powers = [2**power for power in range(1, 7)]
        return [self.name, *(f"{self.name}:best-of-{n}" for n in powers if n <= self.config.max_n)]

    # --- plans ------------------------------------------------------------------------------------

    def plan(self, request: ChatRequest, limits: Limits) -> Plan:
        """What to do for a request.

        Raises:
            RequestError: it asks for what there is not, for more than it may, or for nonsense.
        """
        n = self._n(request, limits)
        choice = request.chosen_tool()
        if request.tool_choice not in (None, "none") and not request.tools:
            raise RequestError("there are no tools to choose from", param="tool_choice")
        try:
            check_size(request.tools, "tools")
            tools = as_tools(request.tools) if choice != "none" else ()
        except ConfigError as error:
            raise as_refusal(error, "tools") from None
        system = self.config.system
        turns = request.messages
        if system is not None and turns[0].get("role") not in ("system", "developer"):
            turns = [{"role": "system", "content": system}, *turns]
        try:
            prompt = as_prompt(turns, tools=tools)
        except ConfigError as error:
            raise as_refusal(error, "messages") from None
        reward = self.reward(request.bestofn.reward)
        try:
            best = BestOfN(
                self._generator(request, limits, choice if tools else "auto"),
                reward,
                n=n,
                selector=self._selector(request, reward),
                reject=_rejection(request) or self.best.reject,
                budget=request.bestofn.budget_tokens,
            )
        except ConfigError as error:
            raise as_refusal(error) from None
        return Plan(best, prompt, request.n or 1)

    def _n(self, request: ChatRequest, limits: Limits) -> int:
        """How many candidates are drawn."""
        model, named = request.model, None
        if model != self.name:
            model, named = split_model(model)
        self.require_model(model, request.model)
        most = request.n or 1
        n = request.bestofn.n or named or max(self.config.n, most)
        if n > limits.max_n:
            param = "bestofn.n" if request.bestofn.n else "model" if named else "n"
            raise RequestError(f"{n} candidates are more than {limits.max_n}", param=param)
        if n < 1 or most > n:
            raise RequestError(f"the best {most} of {n} candidates cannot be had", param="n")
        return n

    def require_model(self, model: str, given: str) -> None:
        """Refuses the name of another model."""
        if model != self.name:
            raise RequestError(
                f"there is no model {given[:80]!r}, but {self.name!r}",
                404,
                param="model",
                code="model_not_found",
            )

    def reward(self, name: str | None) -> RewardModel:
        """The reward of a request, by default the first."""
        names = list(self.rewards)
        if (name or names[0]) not in self.rewards:
            offered = ", ".join(map(repr, names))
            raise RequestError(f"no reward {name!r} is offered; use {offered}", param="reward")
        return self.rewards[name or names[0]]

    def _selector(self, request: ChatRequest, reward: RewardModel) -> Selector:
        spec = request.bestofn.selector or self.config.selector
        if request.bestofn.selector and is_own("selector", spec):
            raise RequestError("only built-in ones can be named", param="bestofn.selector")
        selector = load_selector(spec, self.config.answer or str.strip)
        check_weights(selector, reward.name)
        if selector.draws:
            selector.seed = request.seed or 0
        return selector

    def _generator(self, request: ChatRequest, limits: Limits, tool_choice: str) -> Any:
        """Draws as the request says, where it says nothing as the server does."""
        drawn_by = self.best.generator
        given = {name: getattr(request, name) for name in OWN_SAMPLING}
        changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        extra = {name: v for name in PENALTIES if (v := getattr(request, name))}
        if request.stops:
            changes["stop"] = request.stops
        if (schema := request.schema_of_answer()) is not None:
            check_size(schema, "response_format")
            check_schema(schema, "the values in response_format")
            changes["json_schema"] = schema
        if not isinstance(drawn_by, EngineGenerator):
            if changes or extra or request.limit or request.seed is not None:
                raise ConfigError("this generator samples as it likes; leave out how to sample")
            return drawn_by
        params: SamplingParams = replace(
            drawn_by.params,
            **changes,
            max_tokens=self._max_tokens(request, limits),
            tool_choice=tool_choice,
            parallel_tool_calls=request.parallel_tool_calls is not False,
            extra={**drawn_by.params.extra, **extra},
        )
        seed = drawn_by.seed if request.seed is None else request.seed
        return EngineGenerator(drawn_by.engine, params, seed, bool(request.logprobs))

    def _max_tokens(self, request: ChatRequest, limits: Limits) -> int:
        asked = request.limit
        if asked is not None and asked > limits.max_answer_tokens:
            raise RequestError(
                f"{asked} tokens are more than {limits.max_answer_tokens}", param="max_tokens"
            )
        limit = asked or min(self.config.max_tokens, limits.max_answer_tokens)
        return min(limit, request.bestofn.budget_tokens or limit)

    # --- work -------------------------------------------------------------------------------------

    async def select(
        self, plan: Plan, limits: Limits, on_candidate: Callable[[Candidate], None]
    ) -> Selection:
        """The selection for a plan.

        Raises:
            RequestError: the prompt is too long, no candidate can be used, or the engine is dead.
        """
        try:
            await self._check_length(plan.prompt, limits)
            selection = await plan.best.aselect(plan.prompt, on_candidate=on_candidate)
        except ConfigError as error:
            raise as_refusal(error) from None
        except BestOfNError as error:
            raise await self._failed(str(error)) from None
        if selection.error is not None:
            formed = all(candidate.token_count for candidate in selection.candidates)
            raise await self._failed(selection.error, formed=formed)
        return selection

    async def _check_length(self, prompt: Prompt, limits: Limits) -> None:
        if self.engine is None:
            return
        counting = self.engine.count_tokens(prompt)
        tokens = await concurrency.on_background_loop(counting)
        most, context = limits.max_prompt_tokens, self.engine.context
        if tokens is not None and most is not None and tokens > most:
            raise _too_long(f"the prompt has {tokens} tokens, more than {most}")
        if tokens is not None and context is not None and tokens >= context:
            raise _too_long(str(ContextLengthError(tokens + 1, context, tokens)))

    async def _failed(self, said: str, *, formed: bool = False) -> RequestError:
        """The answer to a request that came to nothing.

        `formed` says that there were answers, but none in the form that was asked for.
        """
        said = said[:500]
        if ContextLengthError.SAYS in said:
            return _too_long(said)
        if formed:
            return RequestError(said, 422, code="no_usable_candidate")
        if failure := await self.failure():
            return RequestError(failure, 503, code="engine_unavailable", retry_after=5)
        return RequestError(said, 502, code="no_candidate")

    async def failure(self) -> str:
        """Why the engines cannot work, empty if they can."""
        if time.monotonic() - self._checked > FRESH:
            try:
                async with asyncio.timeout(PATIENCE):
                    for engine in self._engines:
                        await concurrency.on_background_loop(engine.check())
                self._failure = ""
            except EngineError as error:
                self._failure = str(error)
            except TimeoutError:
                self._failure = f"the engine did not answer within {PATIENCE:g} s"
            self._checked = time.monotonic()
        return self._failure

    async def score(self, request: ScoreRequest) -> list[Pool]:
        """Pools of given responses with their scores.

        Raises:
            RequestError: prompts and responses do not fit together, or the engine is dead.
        """
        reward = self.reward(request.reward)
        if len(request.prompts) != len(request.responses):
            counts = f"{len(request.prompts)} prompts, {len(request.responses)} lists of responses"
            raise RequestError(counts, param="responses")
        pools = []
        for place, (prompt, given) in enumerate(
            zip(request.prompts, request.responses, strict=True)
        ):
            texts = [given] if isinstance(given, str) else given
            try:
                candidates = [Candidate(index, text) for index, text in enumerate(texts)]
                pools.append(Pool(as_prompt(prompt), candidates))
            except ConfigError as error:
                raise as_refusal(error, f"prompts.{place}") from None
        scoring = [add_scores(pool.prompt, pool.candidates, reward) for pool in pools]
        try:
            await concurrency.on_background_loop(concurrency.gather(*scoring))
        except BestOfNError as error:
            raise await self._failed(str(error)) from None
        scores = [c.scores[reward.name] for pool in pools for c in pool.candidates]
        if scores and all(score.reason for score in scores) and (failure := await self.failure()):
            raise RequestError(failure, 503, code="engine_unavailable", retry_after=5)
        return pools

    async def token_texts(self, prompt: Prompt, candidate: Candidate) -> list[str] | None:
        """The text of each of a candidate's tokens, None where the engine does not name them."""
        if self.engine is None or not candidate.token_ids:
            return None
        try:
            naming = self.engine.token_texts(prompt, candidate.token_ids)
            return await concurrency.on_background_loop(naming)
        except EngineError:
            return None


def _rejection(request: ChatRequest) -> EarlyRejection | None:
    asked = request.bestofn.reject
    if isinstance(asked, Rejection):
        return EarlyRejection(tuple(asked.at), asked.keep)
    return EarlyRejection(tuple(asked)) if asked else None


def _too_long(said: str) -> RequestError:
    return RequestError(said, param="messages", code="context_length_exceeded")


@contextmanager
def serving(config: ServeConfig) -> Iterator[Service]:
    """The service of a configuration, with its models in memory.

    Raises:
        ConfigError: a setting makes no sense.
        EngineError: a model cannot be loaded.
    """
    check(config)
    further = [checked(RewardConfig, reward_fields(spec), "--also") for spec in config.also]
    for reward in further:
        if config.confidence is None and reads_confidence(reward.reward):
            raise ConfigError(f"the reward {reward.reward!r} needs --confidence, such as 20")
    with loaded(config) as best:
        own = config.scorer(config)
        rewards = {config.chooses.label: best.reward}
        engine = getattr(best.reward, "engine", None) or getattr(best.generator, "engine", None)
        for reward in further:
            if needs_engine(reward.reward) and (own is None or engine is None):
                raise ConfigError(f"the reward {reward.reward!r} needs a model that scores")
            rewards[reward.label] = load_reward(
                reward.reward, engine=engine, verifier=config.verifier, **reward.options
            )
        yield Service(config, best, rewards)
