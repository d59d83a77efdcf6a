"""What requests ask of the models: a plan made from each, its selection, and what went wrong."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from bestofn import concurrency
from bestofn.config import AskConfig, checked
from bestofn.config.keys import Limits
from bestofn.config.serving import ServeConfig
from bestofn.dataset.select import best_of, check, loaded
from bestofn.engines.base import Engine
from bestofn.errors import BestOfNError, ConfigError, ContextLengthError, EngineError
from bestofn.generators import EngineGenerator
from bestofn.prompts import as_prompt
from bestofn.registry import is_own
from bestofn.rewards.base import load_reward
from bestofn.sampler import BestOfN
from bestofn.scoring import RewardModel, add_scores
from bestofn.serve.requests import ChatRequest, RequestError, ScoreRequest
from bestofn.tools import as_tools, chosen_tool, held_schema
from bestofn.types import Candidate, Pool, Prompt, Selection

PATIENCE = 5.0  # seconds that an engine gets to show that it works
Rewards = Mapping[str, RewardModel]
URL = re.compile(r"\w+://\S+")
BEST_OF = re.compile(r"(.+):best-of-(\d{1,6})")
SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "seed"),
    "parallel_tool_calls",
)
PENALTIES = ("presence_penalty", "frequency_penalty")


class Plan(NamedTuple):
    """What a request comes to."""

    best: BestOfN
    prompt: Prompt
    choices: int  # how many of the candidates it wants, by rank


class Service:
    """The models behind the server: what draws and selects, and the rewards that may be named."""

    def __init__(self, config: ServeConfig, best: BestOfN, rewards: Rewards) -> None:
        if not isinstance(best.generator, EngineGenerator):
            raise ConfigError("only an engine can be served, such as 'vllm:MODEL'")
        self.config, self.rewards, self.engine = config, rewards, best.generator.engine
        served = getattr(self.engine, "model", None)  # as a server calls it
        full = served if isinstance(served, str) else config.engine.rpartition(":")[2]
        self.name = config.model_name or full.rstrip("/").rpartition("/")[2]
        found = [self.engine, *(getattr(reward, "engine", None) for reward in rewards.values())]
        self._engines = {engine for engine in found if isinstance(engine, Engine)}

    def models(self) -> list[str]:
        """What `model` may be in a request, with some numbers of candidates."""
        powers = [2**power for power in range(1, 7)]
        return [self.name, *(f"{self.name}:best-of-{n}" for n in powers if n <= self.config.max_n)]

    def named_n(self, model: str) -> int | None:
        """How many candidates a model's name says; RequestError where it is that of another."""
        named = None if model == self.name else BEST_OF.fullmatch(model)
        if (named[1] if named else model) != self.name:
            what = f"there is no model {model[:80]!r}, but {self.name!r}"
            raise RequestError(what, 404, param="model", code="model_not_found")
        return int(named[2]) if named else None

    def reward(self, name: str | None) -> RewardModel:
        """The reward that a request names, by default the first."""
        name = name or next(iter(self.rewards))
        if name not in self.rewards:
            offered = ", ".join(map(repr, self.rewards))
            raise RequestError(f"no reward {name!r} is offered, only {offered}", param="reward")
        return self.rewards[name]

    async def plan(self, request: ChatRequest, limits: Limits) -> Plan:
        """What to do for a request; RequestError if it asks for too much or for nonsense."""
        asked, choices, n = request.bestofn, request.n or 1, self.named_n(request.model)
        n = asked.n if asked.n is not None else n
        n = min(max(self.config.n, choices), limits.max_n) if n is None else n
        reward, most = self.reward(asked.reward), limits.max_answer_tokens
        limit = request.max_completion_tokens or request.max_tokens
        limit = min(self.config.max_tokens, most) if limit is None else limit
        allowed = {"bestofn.n": (n, limits.max_n), "n": (choices, n), "max_tokens": (limit, most)}
        for name, (value, largest) in allowed.items():
            if not 1 <= value <= largest:
                raise RequestError(f"{name} is {value}, and may be 1 to {largest}", param=name)
        try:
            if asked.selector is not None and is_own("selector", asked.selector):
                raise ConfigError("only a built-in selector can be named", "bestofn.selector")
            prompt, choice = self._prompt(request)
            fields = {name: getattr(request, name) for name in SAMPLING} | {
                "n": n,
                "selector": asked.selector,
                "tool_choice": choice,
                "max_tokens": min(limit, asked.budget_tokens or limit),
                "json_schema": held_schema(request.response_format),
                "reject": asked.reject,
                "reject_keep": asked.reject_keep,
            }
            if penalties := {name: v for name in PENALTIES if (v := getattr(request, name))}:
                fields["sampling_extra"] = self.config.sampling_extra | penalties
            own = {name: getattr(self.config, name) for name in self.config.model_fields_set}
            own |= {name: value for name, value in fields.items() if value is not None}
            own = {name: own[name] for name in own.keys() & AskConfig.model_fields.keys()}
            config = checked(AskConfig, own, "the request")
            sampling, keep = config.sampling(), bool(request.logprobs)
            drawn_by = EngineGenerator(self.engine, sampling, config.seed, keep)
            best = best_of(config, drawn_by, reward, asked.budget_tokens)
            await self._check_length(prompt, limits)
        except BestOfNError as error:
            raise await self._failed(error, 400) from None
        return Plan(best, prompt, choices)

    def _prompt(self, request: ChatRequest) -> tuple[Prompt, str]:
        """The conversation, and which of its tools is to be called."""
        turns, tools = request.messages, request.tools
        declared = as_tools(tools, bounded=True)
        choice = chosen_tool(request.tool_choice, declared)
        if request.tool_choice not in (None, "none", "auto") and not tools:
            raise ConfigError("there are no tools to choose from", "tool_choice")
        if self.config.system and turns[0].get("role") not in ("system", "developer"):
            turns = [{"role": "system", "content": self.config.system}, *turns]
        try:
            if choice == "none":
                return as_prompt(turns), "auto"
            return as_prompt(turns, tools=declared), choice
        except ConfigError as error:
            raise ConfigError(str(error), "messages") from None

    async def _check_length(self, prompt: Prompt, limits: Limits) -> None:
        tokens = await concurrency.on_background_loop(self.engine.count_tokens(prompt)) or 0
        context = self.engine.context or tokens + 1
        if tokens > (most := min(limits.max_prompt_tokens or context, context - 1)):
            raise ContextLengthError(tokens, most, tokens)

    async def select(self, plan: Plan, on_candidate: Callable[[Candidate], None]) -> Selection:
        """The selection for a plan; if it has an error, `unusable` says which."""
        try:
            return await plan.best.aselect(plan.prompt, on_candidate=on_candidate)
        except BestOfNError as error:
            raise await self._failed(error) from None

    async def unusable(self, selection: Selection) -> RequestError:
        """Why there is no response in a selection: none at all, or none in the form asked for."""
        if all(candidate.token_count for candidate in selection.candidates):
            return RequestError(str(selection.error), 422, code="no_usable_candidate")
        return await self._failed(EngineError(str(selection.error)))

    async def _failed(self, error: BestOfNError, status: int = 502) -> RequestError:
        """The answer to a request that came to nothing."""
        said = URL.sub("(its server)", str(error))
        if ContextLengthError.SAYS in said:
            return RequestError(said, param="messages", code="context_length_exceeded")
        if isinstance(error, ConfigError):
            return RequestError(said, param=error.field)
        if failure := await self.failure():
            return RequestError(failure, 503, code="engine_unavailable", wait=5)
        return RequestError(said, status, code="no_candidate")

    async def failure(self) -> str:
        """Why the engines cannot work, empty if they can."""
        try:
            async with asyncio.timeout(PATIENCE):
                for engine in self._engines:
                    await concurrency.on_background_loop(engine.check())
        except (EngineError, TimeoutError) as error:
            return URL.sub("(its server)", str(error)) or "the engine does not answer"
        return ""

    async def score(self, request: ScoreRequest, limits: Limits) -> list[Pool]:
        """Pools of given responses with their scores; RequestError if there are none."""
        self.named_n(request.model or self.name)
        given = [[own] if isinstance(own, str) else own for own in request.responses]
        if len(request.prompts) != len(given) or max(map(len, given)) > limits.max_n:
            said = f"each prompt has a list of responses, {limits.max_n} at most"
            raise RequestError(said, param="responses")
        reward, pools = self.reward(request.reward), []
        try:
            for prompt, texts in zip(map(as_prompt, request.prompts), given, strict=True):
                await self._check_length(prompt, limits)
                pools.append(Pool(prompt, [Candidate(*pair) for pair in enumerate(texts)]))
            scoring = (add_scores(pool.prompt, pool.candidates, reward) for pool in pools)
            await concurrency.on_background_loop(concurrency.gather(*scoring))
        except BestOfNError as error:
            raise await self._failed(error) from None
        reasons = [c.scores[reward.name].reason for pool in pools for c in pool.candidates]
        if reasons and all(reasons) and await self.failure():
            raise await self._failed(EngineError(str(reasons[0])))
        return pools

    async def token_texts(self, prompt: Prompt, candidate: Candidate) -> list[str] | None:
        """The text of each of a candidate's tokens, None where the engine does not name them."""
        with suppress(EngineError):
            if ids := candidate.token_ids:
                return await concurrency.on_background_loop(self.engine.token_texts(prompt, ids))
        return None


@contextmanager
def serving(config: ServeConfig) -> Iterator[Service]:
    """The service of a configuration, with its models in memory; errors are those of `loaded`."""
    check(config)
    with loaded(config) as best:
        rewards = {config.chooses.label: best.reward}
        service = Service(config, best, rewards)
        engine = getattr(best.reward, "engine", None) or service.engine
        for other in config.also:
            own = {"engine": engine, "verifier": config.verifier, **other.options}
            rewards[other.label] = load_reward(other.reward, **own)
        yield service
