"""What one server has: the fields that it takes, learned from its refusals, models and tokens."""

import asyncio
import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from bestofn.concurrency import PerProcess
from bestofn.engines.base import SamplingParams
from bestofn.engines.chat import CONTROL, ChatFormat
from bestofn.engines.openai.server import NOT_THERE, RefusedError, Server
from bestofn.errors import ConfigError, EngineError
from bestofn.prompts import as_turns, clean, split_opening
from bestofn.thinking import ends_in_opening
from bestofn.types import Message, Prompt

Card = Mapping[str, Any]
"""One entry of the list of models; `max_model_len` and `parent` are vLLM's."""
Key = tuple[str, Any]
"""A field, and its value where it is the value that a server may refuse."""

# Statuses of a refusal that may be due to a single field.
NEGOTIABLE = frozenset({400, 403, 422})
# What does nothing. It is sent all the same: what a request does not say, many servers take from
# the model's generation_config.json.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
NEUTRAL = {name: getattr(SamplingParams(), name) for name in SAMPLING}
# What may be left out because it asks for no other answer.
OPTIONAL = frozenset({"logprobs", "return_token_ids", "stream_options"})
# What may be left out with a warning.
MISSED = {
    "temperature": "answers are sampled at a temperature of the server's choice",
    "seed": "results are not reproducible",
}
TOOL_FIELDS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
NEEDED = frozenset({"model", "messages", "max_tokens"})
LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
ALL_TOKENS = ("top_k", NEUTRAL["top_k"])
# By what servers call themselves: names of fields that they do not refuse under another one.
NAMES: Mapping[str | None, Mapping[str, str]] = {
    "llamacpp": {"repetition_penalty": "repeat_penalty"}
}
SHORT = 40  # characters of a value in a message

NO_LIST = NOT_THERE | {403}  # a key may be good for a model and not for the list of all
SHOWN = 8  # model names in a message
FAMILY = "models/"  # which Google's server puts before names in its list

Ids = tuple[int, ...]
QUESTION = Message("user", "x")
REMEMBERED = 512  # tokenised texts: an instruction is the same for all candidates of a prompt


class Fields:
    """What an engine changes in its requests because the server refuses them as they are.

    Args:
        server: What the server calls itself.

    Attributes:
        left_out: Fields that are not sent, each with its value if only that is refused.
        renamed: What the server calls a field.
    """

    def __init__(self, server: str | None) -> None:
        self.renamed = {**NAMES.get(server, {})}
        self._dropped: set[Key] = set()
        self._values: dict[Key, Any] = {}

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(sorted(map(_shown, self._dropped)))

    def spell(self, request: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
        """The request as the server wants it; fields in `asked` are sent as they are."""
        return {
            self.renamed.get(name, name): value if name in asked else self._values.get(key, value)
            for name, value in request.items()
            for key in [_key(name, value)]
            if name in asked or key not in self._dropped
        }

    def learn(
        self, request: Mapping[str, Any], asked: Collection[str], refusal: RefusedError
    ) -> None:
        """Changes what the refusal names, and says once what is missed.

        Raises:
            EngineError: it names a field that matters.
        """
        said = refusal.said
        keys = [_key(name, value) for name, value in request.items()]
        sent = [key for key in keys if key[0] in asked or key not in self._dropped]
        named = [key for key in sent if refusal.field in self._spellings(key[0])]
        named = named or [key for key in sent if self._is_mentioned(key[0], said)]
        free = [key for key in named if key[0] not in asked]
        limited = any(name == LIMIT for name, _ in named) and "context length" not in said.lower()
        if idle := [key for key in free if key[0] in OPTIONAL or key in NEUTRAL.items()]:
            if ALL_TOKENS in idle and "-1" in said and ALL_TOKENS not in self._values:
                self._values[ALL_TOKENS] = -1
            else:
                self._dropped.update(idle)
        elif missed := [key for key in free if key[0] in MISSED]:
            self._dropped.update(missed)
            for key in missed:
                what = f"the server does not take {_shown(key)}, so it is left out"
                warnings.warn(f"{what}: {MISSED[key[0]]}", stacklevel=2)
        elif limited and LIMIT not in self.renamed:
            self.renamed[LIMIT] = NEW_LIMIT
        elif matters := [name for name, _ in named if name not in NEEDED]:
            options = ", ".join(_shown((name, request[name])) for name in matters)
            raise EngineError(
                f"{refusal.sentence}; leave out {options}, or use a server that takes it"
            )

    def _spellings(self, name: str) -> tuple[str, str]:
        return name, self.renamed.get(name, name)

    def _is_mentioned(self, name: str, said: str) -> bool:
        spellings = "|".join(map(re.escape, self._spellings(name)))
        return bool(re.search(rf"(?<!\w)(?:{spellings})(?!\w)", said, re.IGNORECASE))


def _key(name: str, value: Any) -> Key:
    return name, value if name in NEUTRAL else None


def _shown(key: Key) -> str:
    name, value = key
    return name if value is None or len(repr(value)) > SHORT else f"{name}={value!r}"


# --- models ---------------------------------------------------------------------------------------


async def list_models(server: Server, wanted: str) -> list[Card]:
    """The models that a server lists; none where it has no list and the model is named.

    Raises:
        ConfigError: the URL lacks its /v1.
        EngineError: the server cannot be used, or has no list and the model is not named.
    """
    full = f"{server.url}/v1"
    try:
        return await server.models(server.url)
    except EngineError as failure:
        if not server.url.endswith("/v1"):
            with suppress(EngineError):
                await server.models(full)
                wrong = f"the server's API is at {full}; write openai:{full}#MODEL"
                raise ConfigError(wrong) from None
        if not isinstance(failure, RefusedError) or failure.status not in NO_LIST:
            raise
        if wanted:
            return []
        sentence = f"{failure.sentence}; name the model, as {server.url}#MODEL"
        raise EngineError(sentence) from None


def choose_card(url: str, wanted: str, served: Sequence[Card]) -> Card:
    """The entry of the model that is wanted, or of the only one.

    Raises:
        ConfigError: none is named, and it is not the only one.
        EngineError: the server does not have it.
    """
    names = name_some([card["id"] for card in served])
    patterns = any("*" in card["id"] for card in served)  # such as "openai/*", of a gateway
    if wanted:
        for card in served:
            if card["id"] in (wanted, FAMILY + wanted):
                return {**card, "id": wanted}
        if served and not patterns:
            raise EngineError(f"the server at {url} has no model {wanted!r}; it has {names}")
        return {"id": wanted}
    models = [card for card in served if card.get("parent") is None]
    if len(models) != 1 or patterns:
        raise ConfigError(f"name one of the models at {url}, as {url}#MODEL; it has {names}")
    return models[0]


def name_some(names: Sequence[str]) -> str:
    more = ["..."] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more]) or "none"


# --- tokens ---------------------------------------------------------------------------------------


class CannotScoreError(EngineError):
    """The server lacks what scoring needs; it may be able to generate all the same."""

    def __init__(self, url: str, lacking: str) -> None:
        super().__init__(
            f"the server at {url} cannot score a given answer, as it has no {lacking}; use "
            "FLIPReward, or serve the model with vLLM"
        )


class Tokens:
    """Token ids for a server's model, by a tokenizer on this machine or that of a vLLM server."""

    def __init__(
        self,
        server: Server,
        model: str,
        template_kwargs: Mapping[str, Any],
        chat: ChatFormat | None,
    ) -> None:
        self._server = server
        self._model = model
        self._template_kwargs = dict(template_kwargs)
        self._chat = chat and chat.with_kwargs(template_kwargs)
        self._answers = PerProcess[dict[str, asyncio.Task[Any]]](dict)

    async def prompt(self, prompt: Prompt) -> Ids:
        """Ids of the conversation up to where the model is to answer."""
        if self._chat is not None:
            return self._chat.encode(prompt)[0]
        tools = {"tools": list(prompt.tools)} if prompt.tools else {}
        return await self._render(*prompt.messages, **opening_fields(prompt), **tools)

    async def continuation(self, text: str, close: bool) -> Ids:
        """Ids of plain text, with the token that ends an answer if it is to be closed.

        Of a control token that the text spells out the two ends are tokenised apart, so that it
        stays text.
        """
        if self._chat is not None:
            return self._chat.encode_continuation(text, close)
        text = clean(text)
        spelt = [match for match in CONTROL.finditer(text) if len(await self._plain(match[0])) == 1]
        cuts = [0, *(match.start() + 2 for match in spelt), len(text)]
        ids = [i for start, end in pairwise(cuts) for i in await self._plain(text[start:end])]
        return (*ids, await self._closing()) if close else tuple(ids)

    async def opens_thinking(self) -> bool:
        """Whether the chat template is known to start the answer inside a thinking tag."""
        if self._chat is not None:
            return self._chat.encode(Prompt((QUESTION,)))[1]
        try:
            return ends_in_opening(await self.decode(await self._render(QUESTION)))
        except CannotScoreError:
            return False

    async def decode(self, ids: Ids) -> str:
        """The text of these tokens; the server's tokenizer includes special ones."""
        if self._chat is not None:
            return self._chat.text(list(ids))
        return str((await self._ask("detokenize", {"tokens": ids}))["prompt"])

    async def _closing(self) -> int:
        """The control token that the chat template sets behind an answer."""
        answered = (QUESTION, Message("assistant", "probe"))
        options = {"add_generation_prompt": False}
        closed = await self._render(*answered, **options)
        opened = await self._render(*answered, **options, continue_final_message=True)
        behind = closed[len(opened) :][:1] if closed[: len(opened)] == opened else ()
        if not behind or not CONTROL.fullmatch((await self.decode(behind)).strip()):
            raise EngineError(
                "the chat template does not show which token ends an answer; load the engine with "
                "tokenizer='...', the name or folder of the model's tokenizer"
            )
        return behind[0]

    async def _plain(self, text: str) -> Ids:
        answer = await self._ask("tokenize", {"prompt": text, "add_special_tokens": False})
        return tuple(answer["tokens"])

    async def _render(self, *messages: Message, **options: Any) -> Ids:
        request = {"messages": turns(messages), "chat_template_kwargs": self._template_kwargs}
        return tuple((await self._ask("tokenize", request | options))["tokens"])

    async def _ask(self, path: str, request: Mapping[str, Any]) -> Any:
        """The server's answer, asked for once by all that want it."""
        key, answers = json.dumps([path, request], sort_keys=True, default=str), self._answers()
        task = answers.pop(key, None)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.create_task(self._answer(path, request))
        answers[key] = task
        if len(answers) > REMEMBERED:
            del answers[next(iter(answers))]
        return await asyncio.shield(task)

    async def _answer(self, path: str, request: Mapping[str, Any]) -> Any:
        url = f"{self._server.url.removesuffix('/v1')}/{path}"  # beside /v1, not under it
        try:
            return await self._server.post(url, {"model": self._model, **request})
        except RefusedError as error:
            if error.status not in NOT_THERE:
                raise
            raise CannotScoreError(self._server.url, f"/{path}") from None


def opening_fields(prompt: Prompt) -> dict[str, bool]:
    """What tells a server to go on with a last turn of the assistant, where there is one."""
    if not split_opening(prompt)[1]:
        return {}
    return {"add_generation_prompt": False, "continue_final_message": True}


def turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages as a request has them."""
    return [turn | {"content": clean(turn["content"])} for turn in as_turns(messages)]


def tool_fields(prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
    """Of a request whose answer may call tools."""
    if not prompt.tools:
        return {}
    choice: Any = params.tool_choice
    if choice not in ("auto", "required"):
        choice = {"type": "function", "function": {"name": choice}}
    single = {} if params.parallel_tool_calls else {"parallel_tool_calls": False}
    return {"tools": list(prompt.tools), "tool_choice": choice, **single}
