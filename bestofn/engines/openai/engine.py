"""The public face of the engine for servers: what is asked of them and what the answers mean."""

import copy
import os
import re
import time
import warnings
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from typing import Any, Self, TypeVar

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice

from bestofn import concurrency
from bestofn.engines.base import Completion, Engine, SamplingParams, TokenScores
from bestofn.engines.chat import REASONING_FIRST, ChatFormat, require_room
from bestofn.engines.identity import Described
from bestofn.engines.model_files import load_tokenizer
from bestofn.engines.openai.fields import (
    LIMIT,
    NEGOTIABLE,
    NEW_LIMIT,
    Fields,
    NeededError,
    Stats,
)
from bestofn.engines.openai.server import (
    Card,
    Server,
    choose_card,
    list_models,
    name_some,
    said_in,
    url_and_model,
)
from bestofn.engines.openai.tokens import (
    CannotScoreError,
    Ids,
    LocalTokenizer,
    RemoteTokenizer,
    turns,
)
from bestofn.errors import ConfigError, ContextLengthError, EngineError
from bestofn.prompts import clean
from bestofn.thinking import TAG, split_thinking
from bestofn.types import FinishReason, Prompt, Usage

T = TypeVar("T")

OWN_FIELDS = frozenset({"model", "messages", "n", "stream"})  # not for `SamplingParams.extra`
BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")
# Changes to one request, each after a refusal: a field left out, renamed, or cut to what fits.
CHANGES = 12
CHAT = "/chat/completions"
CUT = frozenset({"length", "max_tokens", "MAX_TOKENS"})
# Other servers than vLLM's do not show their chat template.
UNSEEN_REASONING = (
    "an answer closes a thinking tag that it does not open, and counts as text from its beginning; "
    "if the model thinks, start the server with a reasoning parser, or switch the reasoning off"
)
# What servers, OpenAI's and vLLM's alike, put where they have no finite log-probability.
NO_LOGPROB = -9999.0
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
        max_retries: How often the client repeats a request after status 429 or 5xx, a timeout, a
            broken connection, and at most twice after an unparseable answer. Retry-After is
            honoured, up to a minute.
        tokenizer: Name or folder of the model's tokenizer, with which prompts are counted, scored
            and decoded on this machine; it must have the server's chat template. By default the
            server is asked, where it is vLLM's.
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
        tokenizer: str | None = None,
        template: str = "reasoned",
        closing: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        url, wanted = url_and_model(model)
        for option, value, least in [
            ("max_concurrency", max_concurrency, 1),
            ("max_retries", max_retries, 0),
        ]:
            if value < least:
                raise ConfigError(f"{option} must be at least {least}, not {value}")
        self.name = name or f"openai:{model}"
        self.default_template = template
        self._server = Server(
            url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY"),
            max_concurrency=max_concurrency,
            timeout=timeout,
            max_retries=max_retries,
            headers=headers or {},
        )
        try:
            served = concurrency.run(list_models(self._server, wanted))
            self._use(choose_card(url, wanted, served), served)
        except (ConfigError, EngineError):
            self._server.close()
            raise
        self._closing = closing
        self._described = Described(
            f"openai:{url}", {"template": template, "closing": closing, "tokenizer": tokenizer}
        )
        self._guided = False
        self._template_kwargs: dict[str, Any] = {}
        self._chat = None if tokenizer is None else ChatFormat(load_tokenizer(tokenizer))
        self._tokenizer = self._own_tokenizer()

    def _use(self, card: Card, served: Sequence[Card]) -> None:
        parents = [other for other in served if other["id"] == card.get("parent")]
        context = (parents or [card])[0].get("max_model_len")
        self.model: str = card["id"]
        self.context = context if isinstance(context, int) else None
        self._served = tuple(other["id"] for other in served)
        self._vllm = card.get("owned_by") == "vllm"
        self._fields = Fields.of(card.get("owned_by"))  # views share it

    @property
    def stats(self) -> Stats:
        """What is changed in requests for this server, over all views of the engine."""
        return self._fields.stats

    def _own_tokenizer(self) -> LocalTokenizer | RemoteTokenizer:
        if self._chat is not None:
            return LocalTokenizer(self._chat.with_kwargs(self._template_kwargs))
        return RemoteTokenizer(self._server, self.model, self._template_kwargs, self._closing)

    async def generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None = None
    ) -> Completion:
        return await self._on_server(self._generate(prompt, params, seed))

    async def _on_server(self, work: Coroutine[Any, Any, T]) -> T:
        """Work on the package's loop, with the client's errors as the package's."""

        async def reported() -> T:
            try:
                return await work
            except openai.APIError as error:
                raise self._server.as_engine_error(error) from None  # a cause may show the key

        return await concurrency.on_background_loop(reported())

    async def _generate(
        self, prompt: Prompt, params: SamplingParams, seed: int | None
    ) -> Completion:
        started = time.perf_counter()
        request = self._request(prompt, params, seed)
        answer = await self._complete(prompt, request, asked=frozenset(params.extra))
        choice = answer.choices[0]
        reasoning, text = await self._split(choice.message)
        token_ids = _listed(getattr(choice, "token_ids", None))
        return Completion(
            text=text,
            reasoning=reasoning,
            finish_reason=_finish_reason(choice),
            token_ids=token_ids,
            token_logprobs=_token_logprobs(choice, len(token_ids)),
            usage=_usage(answer, len(token_ids), time.perf_counter() - started),
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
            **{name: getattr(params, name) for name in BEYOND_OPENAI},
        }
        if self._vllm:
            request["return_token_ids"] = True
        if self._template_kwargs:
            request["chat_template_kwargs"] = self._template_kwargs
        if params.stop:
            request["stop"] = [clean(text) for text in params.stop]
        if seed is not None:
            request["seed"] = seed % (1 << 63)
        if self._guided and params.json_schema is not None:
            named = {"name": "answer", "schema": dict(params.json_schema), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        request |= params.extra
        if NEW_LIMIT in params.extra:
            del request[LIMIT]
        return request

    async def _complete(
        self, prompt: Prompt, request: dict[str, Any], asked: Collection[str]
    ) -> ChatCompletion:
        """The answer to the request, changed as little as the server demands."""
        fields = copy.deepcopy(self._fields)  # others learn while this one is under way
        for _ in range(CHANGES):
            sent = fields.spell(request, asked)
            try:
                answer: ChatCompletion = await self._server.post(CHAT, sent, ChatCompletion)
            except openai.APIStatusError as refusal:
                if refusal.status_code not in NEGOTIABLE:
                    raise
                try:
                    amended = fields.amended(request, asked, refusal)
                except NeededError as needed:
                    raise self._server.as_engine_error(refusal, str(needed)) from None
                if amended is None:
                    request = await self._fitted(prompt, request, refusal)
                else:
                    fields = amended
            else:
                self._fields.learn(fields)
                return answer
        raise EngineError(f"the server at {self._server.url} refuses the request in any form")

    async def _fitted(
        self, prompt: Prompt, request: dict[str, Any], refusal: openai.APIStatusError
    ) -> dict[str, Any]:
        """The request with a `max_tokens` that fits behind the prompt.

        Raises:
            ContextLengthError: none does.
            openai.APIStatusError: that is not why the server refused.
        """
        tokens, context = await self._lengths(prompt, refusal)
        if tokens >= context:
            raise ContextLengthError(tokens + 1, context, tokens)
        if request.get("max_tokens", 0) <= context - tokens:
            raise refusal
        return request | {"max_tokens": context - tokens}

    async def _lengths(self, prompt: Prompt, refusal: openai.APIStatusError) -> tuple[int, int]:
        """Tokens of the prompt and of the context."""
        if self._vllm and self.context is not None:
            # Of a prompt that is too long, vLLM only says that it has at least one token too many.
            with suppress(CannotScoreError):
                return len(await self._tokenizer.prompt(prompt)), self.context
        lengths, limits = (
            [int(n) for found in pattern.findall(said_in(refusal.body)) for n in found if n]
            for pattern in (LENGTH, CONTEXT_LIMIT)
        )
        if not lengths or not limits:
            raise refusal
        return lengths[0], limits[0]

    async def _split(self, message: ChatCompletionMessage) -> tuple[str | None, str]:
        """Reasoning, None if there is none, and answer."""
        content = _text_of(message.content)
        # Servers that split off the reasoning name it in one of two ways.
        for name in ("reasoning", "reasoning_content"):
            apart = getattr(message, name, None)
            if apart and isinstance(apart, str):
                return apart.strip(), content.strip()
        seen = self._vllm or self._chat is not None
        opened = seen and bool(content) and await self._tokenizer.opens_thinking()
        if not seen and _may_start_inside(content):
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
        return await self._on_server(self._score(prompt, continuation, close, max_tokens))

    async def _score(
        self, prompt: Prompt, continuation: str, close: bool, max_tokens: int | None
    ) -> TokenScores:
        started = time.perf_counter()
        if await self._tokenizer.opens_thinking():
            raise EngineError(REASONING_FIRST)
        prefix = await self._tokenizer.prompt(prompt)
        whole = await self._tokenizer.continuation(continuation, close)
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
        logprobs = self._read_logprobs(answer, len(prefix), ids)
        seconds = time.perf_counter() - started
        usage = Usage(prompt_tokens=len(prefix), scored_tokens=len(ids), seconds=seconds)
        return TokenScores(list(ids), logprobs, usage, complete=ids == whole)

    def _read_logprobs(self, answer: Mapping[str, Any], start: int, ids: Ids) -> list[float]:
        """The log-probabilities of `ids`, which are in the prompt from `start` on."""
        entries = answer["choices"][0].get("prompt_logprobs")
        if entries is None:
            raise CannotScoreError(self._server.url, "prompt_logprobs")
        found = [
            ((entry or {}).get(str(token)) or {}).get("logprob", NO_LOGPROB)
            for entry, token in zip(entries[start:], ids, strict=False)
        ]
        if len(entries) != start + len(ids) or not all(map(_is_known, found)):
            raise EngineError(
                f"the server at {self._server.url} gave log-probabilities of other tokens than it "
                "was asked for, or of no finite value; this is a fault of the server"
            )
        return found

    async def count_tokens(self, prompt: Prompt) -> int | None:
        if self._vllm or self._chat is not None:
            with suppress(CannotScoreError):
                return len(await self._on_server(self._tokenizer.prompt(prompt)))
        return None

    def control_tokens(self, text: str) -> list[str]:
        return (
            super().control_tokens(text) if self._chat is None else self._chat.control_tokens(text)
        )

    async def decode(self, prompt: Prompt, token_ids: Sequence[int]) -> tuple[str | None, str]:
        text = await self._on_server(self._tokenizer.decode(tuple(token_ids)))
        opened = await self._on_server(self._tokenizer.opens_thinking())
        return split_thinking(text, opened=opened)

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


# --- what is read of an answer, of which some servers leave parts out -----------------------------


def _finish_reason(choice: Choice) -> FinishReason:
    reason: str | None = choice.finish_reason
    if reason in BROKEN_OFF:
        raise EngineError(f"the server broke the answer off ({reason})")
    return "length" if reason in CUT else "stop"


def _text_of(content: Any) -> str:
    """The text of content, also of content in parts, of which some hold reasoning."""
    if not isinstance(content, list):
        return content or ""
    parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "".join(str(part.get("text") or "") for part in parts)


def _may_start_inside(content: str) -> bool:
    """Whether the content may begin inside reasoning that the chat template opened.

    It closes on a line of its own what nothing in it opens.
    """
    tag = TAG.search(content)
    if tag is None or not tag.group().startswith("</"):
        return False
    before, after = content[: tag.start()], content[tag.end() :]
    return not before.rpartition("\n")[2].strip() and not after.partition("\n")[0].strip()


def _token_logprobs(choice: Choice, tokens: int) -> list[float] | None:
    """Of all generated tokens, in nats; None if one of them is missing."""
    entries = _listed(getattr(choice.logprobs, "content", None))
    values = [getattr(entry, "logprob", NO_LOGPROB) for entry in entries]
    complete = values and len(values) == (tokens or len(values)) and all(map(_is_known, values))
    return values if complete else None


def _is_known(logprob: Any) -> bool:
    return isinstance(logprob, int | float) and isfinite(logprob) and logprob > NO_LOGPROB


def _usage(answer: ChatCompletion, tokens: int, seconds: float) -> Usage:
    usage = answer.usage
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(getattr(usage, "prompt_tokens_details", None), "cached_tokens"),
        generated_tokens=_count(usage, "completion_tokens") or tokens,
        seconds=seconds,
    )


def _count(counts: object, name: str) -> int:
    count = getattr(counts, name, None)
    return count if isinstance(count, int) and count > 0 else 0


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else []
