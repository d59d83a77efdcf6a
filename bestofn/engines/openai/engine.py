"""The public face of the engine for servers: what is asked of them and what the answers mean."""

import copy
import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from bestofn import concurrency
from bestofn.engines.base import Completion, SamplingParams, TokenScores, Watch, WatchedEngine
from bestofn.engines.chat import REASONING_FIRST, ChatFormat, require_room
from bestofn.engines.identity import Described
from bestofn.engines.model_files import load_tokenizer
from bestofn.engines.openai import streaming
from bestofn.engines.openai.answers import (
    NO_LOGPROB,
    REASONING,
    is_known,
    split_unseen,
    stated_lengths,
    text_of,
    token_logprobs,
    usage_of,
)
from bestofn.engines.openai.dialect import (
    LIMIT,
    NEGOTIABLE,
    NEW_LIMIT,
    NO_LIST,
    SAMPLING,
    TOOL_FIELDS,
    CannotScoreError,
    Fields,
    Tokens,
    choose_card,
    list_models,
    name_some,
    opening_fields,
    tool_fields,
    turns,
)
from bestofn.engines.openai.server import RefusedError, Server
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import clean
from bestofn.thinking import split_thinking
from bestofn.types import Prompt, Usage

P = ParamSpec("P")
T = TypeVar("T")

OWN_FIELDS = frozenset({"model", "messages", "n", "stream"})  # not for `SamplingParams.extra`
# Changes to one request, each after a refusal: a field left out, renamed, or cut to what fits.
CHANGES = 12
CUT = frozenset({"length", "max_tokens", "MAX_TOKENS"})
CONTINUING = frozenset({"vllm", "sglang"})  # servers that go on with an answer that has begun
BROKEN_OFF = frozenset({"abort", "error", "content_filter"})
TOP = 20  # the most `top_logprobs` that the API takes


def on_server(
    method: Callable[Concatenate["OpenAIEngine", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["OpenAIEngine", P], Coroutine[Any, Any, T]]:
    """Runs a method on the package's loop."""

    async def called(engine: "OpenAIEngine", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await concurrency.on_background_loop(method(engine, *args, **kwargs))

    return called


class OpenAIEngine(WatchedEngine):
    """A model behind an OpenAI-compatible server.

    What the OpenAI API does not have is used where the server is vLLM's: token ids, a known
    context, and `loglikelihood`. Log-probabilities of sampled tokens are the server's: those of
    the raw model with vLLM, as long as it is not started with another `--logprobs-mode`.

    Args:
        model: `URL#MODEL`, such as `http://localhost:8000/v1#Qwen/Qwen3-4B-Instruct-2507`. Without
            `#MODEL` it is the server's only model.
        name: What to call the engine.
        api_key: By default the environment's `OPENAI_API_KEY`; local servers need none.
        max_concurrency: Requests under way at once, over all views of the engine; with early
            rejection streams and others are counted apart, and it should be N at least.
        timeout: Seconds to wait for one answer.
        max_retries: How often a request is repeated after status 429 or 5xx, a timeout, a broken
            connection, and at most twice after an unparseable answer; a stream that has begun is
            not repeated.
        tokenizer: Name or folder of the model's tokenizer, with the server's chat template, to
            tokenise on this machine. By default the server is asked, where it is vLLM's.
        template: The backward template that suits the model.
        headers: Sent with each request.

    Raises:
        ConfigError: an option is not usable, or the server has several models and none is named.
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
        tokenizer: str | None = None,
        template: str = "reasoned",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if max_concurrency < 1 or max_retries < 0:
            raise ConfigError("max_concurrency must be at least 1, and max_retries at least 0")
        self.name = name or f"openai:{model}"
        self.default_template = template
        url, _, wanted = model.strip().partition("#")
        key = (api_key or os.environ.get("OPENAI_API_KEY", "")).strip()
        self._server = Server(
            url.rstrip("/"), key, max_concurrency, timeout, max_retries, headers or {}
        )
        try:
            served = concurrency.run(list_models(self._server, wanted))
            card = choose_card(self._server.url, wanted, served)
        except (ConfigError, EngineError):
            self._server.close()
            raise
        parents = [other for other in served if other["id"] == card.get("parent")]
        context = (parents or [card])[0].get("max_model_len")
        self.context = context if isinstance(context, int) else None
        self.model: str = card["id"]
        self._served = tuple(other["id"] for other in served)
        self._vllm = card.get("owned_by") == "vllm"
        self._continues = card.get("owned_by") in CONTINUING
        self.stats = Fields(card.get("owned_by"))  # views share it
        described = {"template": template, "tokenizer": tokenizer}
        self._described = Described(f"openai:{self._server.url}", described)
        self._guided = False
        self._template_kwargs: dict[str, Any] = {}
        self._chat = None if tokenizer is None else ChatFormat(load_tokenizer(tokenizer))
        self._tokens = self._own_tokens()

    def _own_tokens(self) -> Tokens:
        return Tokens(self._server, self.model, self._template_kwargs, self._chat)

    @on_server
    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None, watch: Watch | None
    ) -> Completion:
        started = time.perf_counter()
        request, post = self._request(prompt, params, seed), self._server.post
        if watch is not None:
            # A server that is not vLLM's names tokens with their log-probabilities alone.
            request |= streaming.FIELDS | ({} if self._vllm else {"logprobs": True})
            begun = partial(self._begun, prompt, started)
            post = partial(streaming.follow, self._server, watch, begun)
        asked = frozenset(params.extra) | TOOL_FIELDS
        answer = await self._complete(prompt, request, asked, post)
        choice = answer["choices"][0]
        reason = choice.get("finish_reason")
        if reason in BROKEN_OFF:
            raise EngineError(f"the server broke the answer off ({reason})")
        message = choice.get("message") or {}
        reasoning, text = await self._split(message)
        token_ids = choice.get("token_ids") or []
        return Completion(
            text=text,
            reasoning=reasoning,
            finish_reason="length" if reason in CUT else "stop",
            token_ids=token_ids,
            token_logprobs=token_logprobs(choice, len(token_ids)),
            usage=usage_of(answer, len(token_ids), time.perf_counter() - started),
            tool_calls=message.get("tool_calls") or None,
        )

    async def _begun(
        self, prompt: Prompt, started: float, streamed: streaming.Streamed, at: int
    ) -> Completion:
        """The first `at` tokens of an answer."""
        if token_ids := streamed.token_ids[:at]:
            reasoning, text = await self.decode(prompt, token_ids)
        else:
            reasoning, text = await self._split(streamed.begun(at))
        seconds = time.perf_counter() - started
        logprobs = token_logprobs(streamed.choice(at), at)
        usage = Usage(streamed.prompt_tokens, generated_tokens=at, seconds=seconds)
        return Completion(text, reasoning, "length", token_ids, logprobs, usage)

    def _request(self, prompt: Prompt, params: SamplingParams, seed: int | None) -> dict[str, Any]:
        if own := OWN_FIELDS & set(params.extra):
            raise ConfigError(f"extra cannot set {', '.join(sorted(own))}: the engine does")
        if (begun := opening_fields(prompt)) and not self._continues:
            raise ConfigError(
                f"the server at {self._server.url} is not known to go on with an answer that has "
                "begun, as vLLM's and SGLang's do; take a template without `opening`"
            )
        limit = params.max_tokens if self.context is None else min(params.max_tokens, self.context)
        schema = params.json_schema if self._guided else None
        named = {"name": "answer", "schema": dict(schema or {}), "strict": True}
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": turns(prompt.messages),
            **begun,
            **{name: getattr(params, name) for name in SAMPLING},
            LIMIT: None if NEW_LIMIT in params.extra else limit,
            "logprobs": params.logprobs or None,
            "return_token_ids": self._vllm or None,
            "chat_template_kwargs": self._template_kwargs or None,
            "stop": [clean(text) for text in params.stop] or None,
            "seed": None if seed is None else seed % (1 << 63),
            "response_format": (schema and {"type": "json_schema", "json_schema": named}) or None,
            **tool_fields(prompt, params),
        }
        sent = {name: value for name, value in fields.items() if value is not None}
        return sent | dict(params.extra)

    async def _complete(
        self,
        prompt: Prompt,
        request: dict[str, Any],
        asked: Collection[str],
        post: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """The answer to the request, changed as little as the server demands."""
        post = post or self._server.post
        for _ in range(CHANGES):
            sent = self.stats.spell(request, asked)
            try:
                return await post("/chat/completions", sent)
            except RefusedError as refusal:
                if refusal.status not in NEGOTIABLE:
                    raise
                if self.stats.spell(request, asked) != sent:
                    continue  # another request has learned while this one was under way
                self.stats.learn(request, asked, refusal)
                if self.stats.spell(request, asked) == sent:
                    request = await self._fitted(prompt, request, refusal)
        raise EngineError(f"the server at {self._server.url} refuses the request in any form")

    async def _fitted(
        self, prompt: Prompt, request: dict[str, Any], refusal: RefusedError
    ) -> dict[str, Any]:
        """The request with a `max_tokens` that fits behind the prompt, if that was refused."""
        lengths, limits = stated_lengths(refusal.said)
        if self._vllm and self.context is not None:
            # Of a prompt that is too long, vLLM only says that it has at least one token too many.
            with suppress(CannotScoreError):
                lengths, limits = [len(await self._tokens.prompt(prompt))], [self.context]
        if not lengths or not limits:
            raise refusal
        tokens, context = lengths[0], limits[0]
        if tokens >= context:
            raise ContextLengthError(tokens + 1, context, tokens)
        if request.get(LIMIT, 0) <= context - tokens:
            raise refusal
        return request | {LIMIT: context - tokens}

    async def _split(self, message: Mapping[str, Any]) -> tuple[str | None, str]:
        """Reasoning, None if there is none, and answer."""
        content = text_of(message)
        apart = message.get(REASONING[0]) or message.get(REASONING[1])
        if isinstance(apart, str):
            return apart.strip(), content.strip()
        if self._vllm or self._chat is not None:
            opened = bool(content) and await self._tokens.opens_thinking()
            return split_thinking(content, opened=opened)
        return split_unseen(content)

    @on_server
    async def loglikelihood(
        self,
        prompt: Prompt,
        continuation: str,
        *,
        close: bool = False,
        max_tokens: int | None = None,
    ) -> TokenScores:
        started = time.perf_counter()
        if await self._tokens.opens_thinking():
            raise EngineError(REASONING_FIRST)
        prefix = await self._tokens.prompt(prompt)
        whole = await self._tokens.continuation(continuation, close)
        ids = whole[:max_tokens]
        if not ids:
            raise ConfigError("the continuation to score is empty")
        if self.context is not None:
            require_room(prefix, len(ids) + 1, self.context)
        request = {
            "model": self.model,
            "prompt": [*prefix, *ids],
            "prompt_logprobs": 0,
            "temperature": 0,
            "max_tokens": 1,
        }
        answer = await self._server.post("/completions", request)
        entries = answer["choices"][0].get("prompt_logprobs")
        if entries is None:
            raise CannotScoreError(self._server.url, "prompt_logprobs")
        logprobs = [
            ((entry or {}).get(str(token)) or {}).get("logprob", NO_LOGPROB)
            for entry, token in zip(entries[len(prefix) :], ids, strict=False)
        ]
        if len(entries) != len(prefix) + len(ids) or not all(map(is_known, logprobs)):
            raise EngineError(
                f"the server at {self._server.url} gave log-probabilities of other tokens than it "
                "was asked for, or of no finite value; this is a fault of the server"
            )
        seconds = time.perf_counter() - started
        usage = Usage(prompt_tokens=len(prefix), scored_tokens=len(ids), seconds=seconds)
        return TokenScores(list(ids), logprobs, usage, complete=ids == whole)

    @on_server
    async def first_tokens(self, prompt: Prompt, answers: Sequence[str]) -> TokenScores:
        """Of a server that is not vLLM's those of the likeliest tokens, which it names.

        Another counts as the least likely of them. Token ids are unknown.
        """
        if self._vllm:
            return await super().first_tokens(prompt, answers)
        if await self._tokens.opens_thinking():
            raise EngineError(REASONING_FIRST)
        started = time.perf_counter()
        fields = {"logprobs": True, "top_logprobs": TOP}
        params = SamplingParams(temperature=0.0, max_tokens=1, extra=fields)
        answer = await self._complete(prompt, self._request(prompt, params, None), fields)
        entries = (answer["choices"][0].get("logprobs") or {}).get("content") or [{}]
        tops = [e for e in entries[0].get("top_logprobs") or () if is_known(e.get("logprob"))]
        named: dict[str, float] = {}
        for entry in tops:
            named.setdefault(str(entry.get("token")).strip(), entry["logprob"])
        if not named.keys() & set(answers):
            raise EngineError(
                f"the server at {self._server.url} gives no log-probability of any of the answers "
                f"{', '.join(answers)}, as `top_logprobs`; let the judge write its verdict as text"
            )
        for text in set(answers) - named.keys():
            if any(text.startswith(other) for other in named.keys() & set(answers)):
                raise EngineError(
                    f"the tokens of the server at {self._server.url} may not tell {text!r} from "
                    "its beginning; take the template 'yes', or a verdict as text"
                )
        least = min(entry["logprob"] for entry in tops)
        usage = usage_of(answer, 1, time.perf_counter() - started)
        return TokenScores([], [named.get(text, least) for text in answers], usage, complete=False)

    @on_server
    async def token_texts(self, prompt: Prompt, token_ids: Sequence[int]) -> list[str]:
        if not (self._vllm or self._chat is not None):
            return await super().token_texts(prompt, token_ids)
        distinct = list(dict.fromkeys(token_ids))
        texts = await concurrency.gather(*(self._tokens.decode((token,)) for token in distinct))
        named = dict(zip(distinct, texts, strict=True))
        return [named[token] for token in token_ids]

    @on_server
    async def check(self) -> None:
        try:
            await self._server.models(self._server.url)
        except RefusedError as refusal:
            if refusal.status not in NO_LIST:
                raise

    @on_server
    async def count_tokens(self, prompt: Prompt) -> int | None:
        if self._vllm or self._chat is not None:
            with suppress(CannotScoreError):
                return len(await self._tokens.prompt(prompt))
        return None

    def control_tokens(self, text: str) -> list[str]:
        chat = self._chat
        return super().control_tokens(text) if chat is None else chat.control_tokens(text)

    @on_server
    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        text = await self._tokens.decode(tuple(token_ids))
        return split_thinking(text, opened=await self._tokens.opens_thinking())

    def with_options(
        self,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        lora: str | None = None,
        guided: bool | None = None,
        **other: Any,
    ) -> Self:
        """A view with other options; `lora` is the name of an adapter that the server has."""
        super().with_options(**other)
        if lora is not None and self._served and lora not in self._served:
            raise ConfigError(
                f"the server at {self._server.url} has no adapter {lora!r}, only "
                f"{name_some(self._served)}; load it there and name it"
            )
        view = copy.copy(self)
        view.model = lora or self.model
        view._guided = self._guided if guided is None else guided
        view._template_kwargs = self._template_kwargs | dict(chat_template_kwargs or {})
        view._tokens = view._own_tokens()
        return view

    @property
    def running(self) -> int:
        """Requests that are not finished, over all views."""
        return self._server.running

    def identity(self) -> dict[str, Any]:
        """What results depend on; see `bestofn.identity`."""
        view = {"chat_template_kwargs": self._template_kwargs, "guided": self._guided}
        return replace(self._described, view=view).identity() | {"model": self.model}

    def close(self) -> None:
        self._server.close()
