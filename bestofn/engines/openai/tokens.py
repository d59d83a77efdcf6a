"""Token ids for a server's model: by a tokenizer on this machine, or the server's own over HTTP."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import openai

from bestofn.engines.chat import CONTROL, ChatFormat
from bestofn.engines.openai.server import NOT_THERE, Server
from bestofn.errors import EngineError
from bestofn.prompts import as_turns, clean
from bestofn.thinking import ends_in_opening
from bestofn.types import Message, Prompt

T = TypeVar("T")
Ids = tuple[int, ...]
QUESTION = Message("user", "x")
REMEMBERED = 512  # tokenised texts: an instruction is the same for all candidates of a prompt


class CannotScoreError(EngineError):
    """The server lacks what scoring needs; it may be able to generate all the same."""

    def __init__(self, url: str, lacking: str) -> None:
        super().__init__(
            f"the server at {url} cannot score a given answer, as it has no {lacking}; use "
            "FLIPReward, or serve the model with vLLM"
        )


class LocalTokenizer:
    """The model's tokenizer and chat template, loaded on this machine."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat

    async def prompt(self, prompt: Prompt) -> Ids:
        return self._chat.encode(prompt)[0]

    async def continuation(self, text: str, close: bool) -> Ids:
        return self._chat.encode_continuation(text, close)

    async def opens_thinking(self) -> bool:
        return self._chat.encode(Prompt((QUESTION,)))[1]

    async def decode(self, ids: Ids) -> str:
        return self._chat.text(list(ids))


class RemoteTokenizer:
    """The server's tokenizer, as vLLM's servers offer it.

    Args:
        server: Where to ask.
        model: The model's name there.
        template_kwargs: For the chat template.
        closing: The text of the token that ends an answer; None finds it by the template.
    """

    def __init__(
        self, server: Server, model: str, template_kwargs: Mapping[str, Any], closing: str | None
    ) -> None:
        self._server = server
        self._model = model
        self._template_kwargs = dict(template_kwargs)
        self._closing = closing
        self._remembered: dict[str, Ids] = {}
        self._found: dict[str, asyncio.Task[Any]] = {}

    async def prompt(self, prompt: Prompt) -> Ids:
        """Ids of the conversation up to where the model is to answer."""
        return await self._render(prompt.messages)

    async def continuation(self, text: str, close: bool) -> Ids:
        """Ids of plain text, with the token that ends an answer if it is to be closed.

        Of a control token that the text spells out the two ends are tokenised apart, so that it
        stays text.

        Raises:
            EngineError: the token that ends an answer cannot be found.
        """
        text = clean(text)
        spelt = [match for match in CONTROL.finditer(text) if await self._is_control(match[0])]
        cuts = [0, *(match.start() + 2 for match in spelt), len(text)]
        ids = [i for start, end in pairwise(cuts) for i in await self._plain(text[start:end])]
        return (*ids, await self._find("closing", self._look_for_closing)) if close else tuple(ids)

    async def opens_thinking(self) -> bool:
        """Whether the chat template is known to start the answer inside a thinking tag."""
        return await self._find("thinking", self._look_for_thinking)

    async def decode(self, ids: Ids) -> str:
        """The text of these tokens, special ones included."""
        answer = await self._ask("detokenize", {"tokens": list(ids)})
        return str(answer["prompt"])

    async def _find(self, what: str, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is the same for all prompts, looked for once by all that wait for it."""
        search = self._found.get(what)
        if search is None or (search.done() and (search.cancelled() or search.exception())):
            search = self._found[what] = asyncio.create_task(look())
        found: T = await asyncio.shield(search)
        return found

    async def _look_for_thinking(self) -> bool:
        try:
            return ends_in_opening(await self.decode(await self._render((QUESTION,))))
        except CannotScoreError:
            return False

    async def _look_for_closing(self) -> int:
        """What follows an answer, whatever it says, if that is a special token."""
        if self._closing is not None:
            ids = await self._plain(self._closing)
            if len(ids) != 1:
                raise EngineError(
                    f"closing={self._closing!r} is {len(ids)} tokens; give the text of one"
                )
            return ids[0]
        first, second = [
            await self._render((QUESTION, Message("assistant", answer)), generate=False)
            for answer in ("probe text", "another word")
        ]
        common = 0
        while first[-1 - common :] == second[-1 - common :] and common < len(first):
            common += 1
        for token in first[len(first) - common :][:1]:
            text = await self.decode((token,))
            if len(text.strip()) > 2 and await self._is_control(text):
                return token
        raise EngineError(
            "the chat template does not show which token ends an answer; load the engine with "
            "closing='...', the text of that token, or with tokenizer='...', the model's tokenizer"
        )

    async def _is_control(self, text: str) -> bool:
        """Whether this is the text of a single token that merges with nothing beside it.

        A server does not list its special tokens.
        """
        ids = await self._plain(text)
        return len(ids) == 1 and await self._plain(text * 3) == ids * 3

    async def _plain(self, text: str) -> Ids:
        return await self._ids({"prompt": text, "add_special_tokens": False})

    async def _render(self, messages: tuple[Message, ...], generate: bool = True) -> Ids:
        return await self._ids(
            {
                "messages": turns(messages),
                "add_generation_prompt": generate,
                "chat_template_kwargs": self._template_kwargs,
            }
        )

    async def _ids(self, request: Mapping[str, Any]) -> Ids:
        key = json.dumps(request, sort_keys=True, default=str)
        ids = self._remembered.get(key)
        if ids is None:
            ids = tuple((await self._ask("tokenize", request))["tokens"])
            if len(self._remembered) >= REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = ids
        return ids

    async def _ask(self, path: str, request: Mapping[str, Any]) -> Any:
        try:
            return await self._server.post(
                self._server.beside(path), {"model": self._model, **request}
            )
        except openai.APIStatusError as error:
            if error.status_code not in NOT_THERE:
                raise
            raise CannotScoreError(self._server.url, f"/{path}") from None


def turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages as a request has them."""
    return [turn | {"content": clean(turn["content"])} for turn in as_turns(messages)]
