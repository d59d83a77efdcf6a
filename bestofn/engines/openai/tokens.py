"""The server's own tokenizer, asked over HTTP as vLLM's servers offer it."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import BaseModel

from bestofn.engines.openai.answers import Text, Tokens
from bestofn.engines.openai.failures import RefusedError
from bestofn.engines.openai.models import NOT_THERE
from bestofn.engines.openai.server import Server
from bestofn.errors import EngineError
from bestofn.prompts import as_turns, clean
from bestofn.thinking import ends_in_opening
from bestofn.types import Message, Prompt

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")
Ids = tuple[int, ...]

# Control tokens look like <|this|>, <this>, </this> or [THIS].
TAG_LIKE = re.compile(r"<[^<>\s]{1,48}>|\[/?[A-Z_]{2,32}\]")
REMEMBERED = 512  # tokenised texts: an instruction is the same for all candidates of a prompt


class CannotScoreError(EngineError):
    """The server lacks what scoring needs; it may be able to generate all the same."""

    def __init__(self, url: str, lacking: str) -> None:
        super().__init__(
            f"the server at {url} cannot score a given answer, as it has no {lacking}; use "
            "FLIPReward, or serve the model with vLLM"
        )


class RemoteTokenizer:
    """One view's way to token ids.

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
        return await self._render(prompt.messages, generate=True)

    async def text(self, text: str) -> Ids:
        """Ids of plain text, without special tokens added.

        Of a control token that the text spells out the two ends are tokenised apart, so that it
        stays text.
        """
        text = clean(text)
        spelled = [match for match in TAG_LIKE.finditer(text) if await self._is_control(match[0])]
        cuts = [0, *(match.start() + 2 for match in spelled), len(text)]
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        return tuple([token for piece in pieces for token in await self._plain(piece)])

    async def _plain(self, text: str) -> Ids:
        return await self._ids({"prompt": text, "add_special_tokens": False})

    async def _is_control(self, text: str) -> bool:
        """Whether this is the text of a single token that merges with nothing beside it.

        A server does not list its special tokens.
        """
        ids = await self._plain(text)
        return len(ids) == 1 and await self._plain(text * 3) == ids * 3

    async def opens_thinking(self) -> bool:
        """Whether the chat template is known to start the answer inside a thinking tag."""
        return await self._find("thinking", self._look_for_thinking)

    async def closing(self) -> int:
        """The token that ends an answer.

        Raises:
            EngineError: the server does not let it be told.
        """
        return await self._find("closing", self._look_for_closing)

    async def _find(self, what: str, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is the same for all prompts, looked for once by all that wait for it."""
        search = self._found.get(what)
        if search is None or (search.done() and (search.cancelled() or search.exception())):
            search = self._found[what] = asyncio.create_task(look())
        found: T = await asyncio.shield(search)
        return found

    async def _look_for_thinking(self) -> bool:
        try:
            return ends_in_opening(await self.decode(await self.prompt(_turns("x"))))
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
        answers = ("probe text", "another word")
        first, second = [
            await self._render(_turns("x", answer).messages, generate=False) for answer in answers
        ]
        for token in _common_end(first, second)[:1]:
            text = await self.decode((token,))
            if len(text.strip()) > 2 and await self._is_control(text):
                return token
        raise EngineError(
            "the chat template does not show which token ends an answer; load the engine with "
            "closing='...', the text of that token"
        )

    async def _render(self, messages: tuple[Message, ...], generate: bool) -> Ids:
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
            ids = tuple((await self._ask("tokenize", request, Tokens)).tokens)
            if len(self._remembered) >= REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = ids
        return ids

    async def decode(self, ids: Ids) -> str:
        """The text of these tokens, special ones included."""
        return (await self._ask("detokenize", {"tokens": list(ids)}, Text)).prompt

    async def _ask(self, path: str, request: Mapping[str, Any], answer: type[A]) -> A:
        body = {"model": self._model, **request}
        try:
            return await self._server.post(self._server.beside(path), body, answer)
        except RefusedError as error:
            if error.status not in NOT_THERE:
                raise
            raise CannotScoreError(self._server.url, f"/{path}") from error


def turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [turn | {"content": clean(turn["content"])} for turn in as_turns(messages)]


def _turns(user: str, assistant: str | None = None) -> Prompt:
    reply = [] if assistant is None else [Message("assistant", assistant)]
    return Prompt((Message("user", user), *reply))


def _common_end(first: Ids, second: Ids) -> Ids:
    length = 0
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        length += 1
    return first[len(first) - length :]
