"""The public face of the engine for servers: what is asked of them and what the answers mean."""

import copy
import os
import re
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self, TypeVar

from bestofn import concurrency
from bestofn.engines.base import (
    Completion,
    Engine,
    SamplingParams,
    TokenScores,
    spelt_like_control_tokens,
)
from bestofn.engines.chat import REASONING_FIRST
from bestofn.engines.identity import Described
from bestofn.engines.openai.answers import (
    ChatAnswer,
    ChatChoice,
    Message,
    ModelCard,
    ScoredAnswer,
    TokenUsage,
)
from bestofn.engines.openai.failures import RefusedError
from bestofn.engines.openai.fields import LIMIT, NEGOTIABLE, NEW_LIMIT, Fields, Stats
from bestofn.engines.openai.models import choose_card, list_models, name_some, url_and_model
from bestofn.engines.openai.server import Server
from bestofn.engines.openai.tokens import CannotScoreError, Ids, RemoteTokenizer, turns
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import clean
from bestofn.thinking import split_thinking
from bestofn.types import FinishReason, Prompt, Usage

T = TypeVar("T")

OWN_FIELDS = frozenset({"model", "messages", "n", "stream"})  # not for `SamplingParams.extra`
BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")
# Changes to one request, each after a refusal: a field left out, renamed, or cut to what fits.
CHANGES = 12
CUT = frozenset({"length", "max_tokens", "MAX_TOKENS"})
# Other servers than vLLM's do not show their chat template.
UNSEEN_REASONING = (
    "an answer closes a thinking tag that it does not open, and counts as text from its beginning; "
    "if the model thinks, start the server with a reasoning parser, or switch the reasoning off"
)
BROKEN_OFF = frozenset({"abort", "error", "content_filter"})

# How servers say that a prompt is too long: OpenAI's, vLLM's, SGLang's.
CONTEXT_LIMIT = re.compile(r"context length(?: is| of)? \(?(\d+) tokens|context length of (\d+)")
LENGTH = re.compile(
    r"(\d+) (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)"
    r"|(?:resulted in|contains at least|contains|has) (\d+) (?:input )?tokens"
    r"|input \((\d+) tokens\)"
)


class OpenAIEngine(Engine):
    """A model behind an OpenAI-compatible server.

    What the OpenAI API does not have is used where the server is vLLM's: token ids, a known
    context, and `loglikelihood`. Log-probabilities of sampled tokens are the server's: those of
    the raw model with vLLM, as long as it is not started with another `--logprobs-mode`.

    Args:
        model: `URL#MODEL`, such as `http://localhost:8000/v1#Qwen/Qwen3-4B-Instruct-2507`. Without
            `#MODEL` it is the server's only model.
        name: What to call the engine.
        api_key: By default the environment's `OPENAI_API_KEY`; local servers need none.
        max_concurrency: Requests under way at once, over all views of the engine.
        timeout: Seconds to wait for one answer.
        max_retries: How often a request is made again after status 429 or 5xx, a timeout, a broken
            connection, and at most twice after an unparseable answer. Retry-After is honoured, up
            to a minute.
        backoff: Seconds before the first repetition; doubled for each further one.
        template: The backward template that suits the model.
        closing: The text of the token that ends an answer, such as "<|im_end|>", where
            `loglikelihood` cannot find it by the chat template.
        headers: Sent with each request.

    Raises:
        ConfigError: the URL or an option is not usable, or the model is not named and the server
            has several.
        EngineError: the server cannot be reached, or does not have the model.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        api_key: str | None = None,
        max_concurrency: int = 128,
        timeout: float = 600.0,
        max_retries: int = 6,
        backoff: float = 0.5,
        template: str = "reasoned",
        closing: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        url, wanted = url_and_model(model)
        _require_at_least(max_concurrency=(max_concurrency, 1), max_retries=(max_retries, 0))
        self.name = name or f"openai:{model}"
        self.default_template = template
        self._server = Server(
            url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY"),
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_retries=max_retries,
            backoff=backoff,
            headers=headers or {},
        )
        try:
            served = concurrency.run(list_models(self._server, wanted))
            self._use(choose_card(url, wanted, served), served)
        except (ConfigError, EngineError):
            self._server.close()
            raise
        self._closing = closing
        self._described = Described(f"openai:{url}", {"template": template, "closing": closing})
        self._guided = False
        self._template_kwargs: dict[str, Any] = {}
        self._tokenizer = self._own_tokenizer()

    def _use(self, card: ModelCard, served: list[ModelCard]) -> None:
        parents = [other for other in served if other.id == card.parent]
        self.model = card.id
        self.context: int | None = (parents or [card])[0].max_model_len
        self._served = tuple(other.id for other in served)
        self._vllm = card.owned_by == "vllm"
        self._fields = Fields.of(card.owned_by)  # views share it

    @property
    def stats(self) -> Stats:
        """What is changed in requests for this server, over all views of the engine."""
        return self._fields.stats

    def _own_tokenizer(self) -> RemoteTokenizer:
        return RemoteTokenizer(self._server, self.model, self._template_kwargs, self._closing)

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        return await concurrency.on_background_loop(self._generate(prompt, params, seed))

    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None
    ) -> Completion:
        started = time.perf_counter()
        request = self._request(prompt, params, seed)
        answer = await self._complete(prompt, request, asked=frozenset(params.extra))
        choice = answer.choices[0]
        reasoning, text = await self._split(choice.message)
        return Completion(
            text=text,
            reasoning=reasoning,
            finish_reason=_finish_reason(choice),
            token_ids=choice.token_ids or [],
            token_logprobs=choice.token_logprobs,
            usage=_usage(answer.usage, choice, time.perf_counter() - started),
        )

    def _request(self, prompt: Prompt, params: SamplingParams, seed: int | None) -> dict[str, Any]:
        own = OWN_FIELDS & set(params.extra)
        if own:
            raise ConfigError(f"extra cannot set {', '.join(sorted(own))}: the engine does")
        limit = params.max_tokens if self.context is None else min(params.max_tokens, self.context)
        request: dict[str, Any] = {
            "model": self.model,
            "messages": turns(prompt.messages),
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": limit,
            **({"logprobs": True} if params.logprobs else {}),
            **self._beyond_openai(params),
        }
        if params.stop:
            request["stop"] = [clean(text) for text in params.stop]
        if seed is not None:
            request["seed"] = seed % (1 << 63)
        if self._guided and params.json_schema is not None:
            request["response_format"] = _response_format(params.json_schema)
        request |= params.extra
        if NEW_LIMIT in params.extra:
            del request[LIMIT]
        return request

    def _beyond_openai(self, params: SamplingParams) -> dict[str, Any]:
        options = {name: getattr(params, name) for name in BEYOND_OPENAI}
        if self._vllm:
            options["return_token_ids"] = True
        if self._template_kwargs:
            options["chat_template_kwargs"] = self._template_kwargs
        return options

    async def _complete(
        self, prompt: Prompt, request: dict[str, Any], asked: Collection[str]
    ) -> ChatAnswer:
        """The answer to the request, changed as little as the server demands."""
        fields = copy.deepcopy(self._fields)  # others learn while this one is under way
        for _ in range(CHANGES):
            sent = fields.spell(request, asked)
            try:
                answer = await self._server.post("/chat/completions", sent, ChatAnswer)
            except RefusedError as refusal:
                if refusal.status not in NEGOTIABLE:
                    raise
                amended = fields.amended(request, asked, refusal)
                if amended is None:
                    request = await self._fitted(prompt, request, refusal)
                else:
                    fields = amended
            else:
                self._fields.learn(fields)
                return answer
        raise EngineError(f"the server at {self._server.url} refuses the request in any form")

    async def _fitted(
        self, prompt: Prompt, request: dict[str, Any], refusal: RefusedError
    ) -> dict[str, Any]:
        """The request with a `max_tokens` that fits behind the prompt.

        Raises:
            ContextLengthError: none does.
            RefusedError: that is not why the server refused.
        """
        tokens, context = await self._lengths(prompt, refusal)
        if tokens >= context:
            raise ContextLengthError(tokens + 1, context, tokens) from refusal
        if request.get("max_tokens", 0) <= context - tokens:
            raise refusal
        return request | {"max_tokens": context - tokens}

    async def _lengths(self, prompt: Prompt, refusal: RefusedError) -> tuple[int, int]:
        """Tokens of the prompt and of the context."""
        if self._vllm and self.context is not None:
            # Of a prompt that is too long, vLLM only says that it has at least one token too many.
            with suppress(CannotScoreError):
                return len(await self._tokenizer.prompt(prompt)), self.context
        lengths, limits = (
            [int(number) for found in pattern.findall(refusal.said) for number in found if number]
            for pattern in (LENGTH, CONTEXT_LIMIT)
        )
        if not lengths or not limits:
            raise refusal
        return lengths[0], limits[0]

    async def _split(self, message: Message) -> tuple[str | None, str]:
        """Reasoning, None if there is none, and answer."""
        content = message.content or ""
        if message.split_off is not None:
            return message.split_off.strip(), content.strip()
        opened = self._vllm and bool(content) and await self._tokenizer.opens_thinking()
        if not self._vllm and message.may_start_inside:
            warnings.warn(UNSEEN_REASONING, stacklevel=2)
        return split_thinking(content, opened=opened)

    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        return await concurrency.on_background_loop(
            self._score(prompt, continuation, close, max_tokens)
        )

    async def _score(
        self, prompt: Prompt, continuation: str, close: bool, max_tokens: int | None
    ) -> TokenScores:
        started = time.perf_counter()
        prefix, whole = await self._encode_scored(prompt, continuation, close)
        ids = whole[:max_tokens]
        self._require_scorable(prefix, ids)
        request = {
            "model": self.model,
            "prompt": [*prefix, *ids],
            "prompt_logprobs": 0,
            "temperature": 0,
            "max_tokens": 1,
        }
        answer = await self._server.post("/completions", request, ScoredAnswer)
        logprobs = self._read_logprobs(answer, len(prefix), ids)
        seconds = time.perf_counter() - started
        usage = Usage(prompt_tokens=len(prefix), scored_tokens=len(ids), seconds=seconds)
        return TokenScores(list(ids), logprobs, usage, complete=ids == whole)

    async def _encode_scored(
        self, prompt: Prompt, continuation: str, close: bool
    ) -> tuple[Ids, Ids]:
        if await self._tokenizer.opens_thinking():
            raise EngineError(REASONING_FIRST)
        prefix = await self._tokenizer.prompt(prompt)
        ids = await self._tokenizer.text(continuation)
        if close:
            ids = (*ids, await self._tokenizer.closing())
        return prefix, ids

    def _require_scorable(self, prefix: Ids, ids: Ids) -> None:
        if not ids:
            raise ConfigError("the continuation to score is empty")
        # The server generates one token behind what it scores, though nobody wants it.
        length = len(prefix) + len(ids) + 1
        if self.context is not None and length > self.context:
            raise ContextLengthError(length, self.context, len(prefix))

    def _read_logprobs(self, answer: ScoredAnswer, start: int, ids: Ids) -> list[float]:
        """The log-probabilities of `ids`, which stand in the prompt from `start` on."""
        entries = answer.choices[0].prompt_logprobs
        if entries is None:
            raise CannotScoreError(self._server.url, "prompt_logprobs")
        found = [
            (entry or {}).get(str(token))
            for entry, token in zip(entries[start:], ids, strict=False)
        ]
        values = [entry.logprob for entry in found if entry is not None and entry.known]
        if len(entries) != start + len(ids) or len(values) != len(ids):
            raise EngineError(
                f"the server at {self._server.url} gave log-probabilities of other tokens than it "
                "was asked for, or of no finite value; this is a fault of the server"
            )
        return values

    async def count_tokens(self, prompt: Prompt) -> int | None:
        if not self._vllm:
            return None
        with suppress(CannotScoreError):
            return len(await concurrency.on_background_loop(self._tokenizer.prompt(prompt)))
        return None

    def control_tokens(self, text: str) -> list[str]:
        return spelt_like_control_tokens(text)

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        text = await self._tokenizer.decode(tuple(token_ids))
        return split_thinking(text, opened=await self._tokenizer.opens_thinking())

    def with_options(
        self,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        lora: str | None = None,
        guided: bool | None = None,
        **other: Any,
    ) -> Self:
        """A view with other options; `lora` is the name of an adapter that the server has."""
        if other:
            raise ConfigError(
                f"the openai engine has no option {', '.join(other)}; it has "
                "chat_template_kwargs, lora and guided"
            )
        if lora is not None and self._served and lora not in self._served:
            raise ConfigError(
                f"the server at {self._server.url} has no adapter {lora!r}, only "
                f"{name_some(self._served)}; load it there and name it"
            )
        if chat_template_kwargs is not None and not isinstance(chat_template_kwargs, Mapping):
            raise ConfigError(
                "chat_template_kwargs must be a mapping, such as {'enable_thinking': False}, not "
                f"{chat_template_kwargs!r}"
            )
        view = copy.copy(self)
        view.model = lora or self.model
        view._guided = self._guided if guided is None else guided
        view._template_kwargs = self._template_kwargs | dict(chat_template_kwargs or {})
        view._tokenizer = view._own_tokenizer()
        return view

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        view = {"chat_template_kwargs": self._template_kwargs, "guided": self._guided}
        return replace(self._described, view=view).identity() | {"model": self.model}

    def close(self) -> None:
        self._server.close()


def _require_at_least(**options: tuple[int, int]) -> None:
    for name, (value, least) in options.items():
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _finish_reason(choice: ChatChoice) -> FinishReason:
    if choice.finish_reason in BROKEN_OFF:
        raise EngineError(f"the server broke the answer off ({choice.finish_reason})")
    return "length" if choice.finish_reason in CUT else "stop"


def _usage(usage: TokenUsage | None, choice: ChatChoice, seconds: float) -> Usage:
    usage = usage or TokenUsage()
    generated = usage.completion_tokens
    return Usage(
        prompt_tokens=usage.prompt_tokens or 0,
        cached_tokens=usage.cached_tokens,
        generated_tokens=len(choice.token_ids or []) if generated is None else generated,
        seconds=seconds,
    )
