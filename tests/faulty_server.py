"""An OpenAI-compatible server in a thread, whose faults are scripted."""

import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

from aiohttp import web

Key = tuple[str, int | None]
Fault = Callable[[Key, int], str | None]
"""By prompt and seed, and by the number of the attempt (from 0): the fault's name, if any."""
Body = dict[str, Any]
Response = tuple[int, Any]
"""The status, and an object for JSON or bytes for a web page."""

CONTEXT = 64  # tokens, of one byte each
PAGE = b"<!doctype html><html><title>Open WebUI</title></html>"
SPECIAL = {1000: "<|answer|>", 1001: "<|end|>", 1002: "<think>"}


def no_fault(key: Key, attempt: int) -> str | None:
    return None


def seeded(share: float, kinds: tuple[str, ...], seed: int = 0) -> Fault:
    """Faults of all kinds in a share of the attempts, the same in every run."""

    def fault(key: Key, attempt: int) -> str | None:
        digest = hashlib.blake2b(f"{seed}\x1f{key}\x1f{attempt}".encode()).digest()
        if int.from_bytes(digest[:4], "big") / 2**32 >= share:
            return None
        return kinds[digest[4] % len(kinds)]

    return fault


class FaultyServer:
    """Answers every chat request with "answer to PROMPT", unless told otherwise.

    With `vllm` it has that server's extensions, with a context of 64 tokens; names of `models` with
    a slash are adapters of the first; `listed` and `elsewhere` replace the list of models and what
    is at other paths; with `thinks` the chat template opens a thinking tag. With `pieces` it
    streams where that is asked for, a word every `pause` seconds, each as the choice that `pieces`
    makes; `breaks` is how a stream ends before its time. By prompt and seed it counts `attempts`
    and whole answers (`successes`), by kind `faults`.
    """

    def __init__(
        self,
        fault: Fault = no_fault,
        *,
        vllm: bool = False,
        owner: str = "someone",
        models: tuple[str, ...] = ("model",),
        listed: Response | None = None,
        elsewhere: Response = (404, {"detail": "Not Found"}),
        thinks: bool = False,
        key: str | None = None,
        delay: float = 0.0,
        message: Callable[[str], Body] = lambda prompt: {"content": f"answer to {prompt}"},
        refuse: Callable[[Body], Response | None] = lambda body: None,
        changed: Callable[[Body], Any] = lambda answer: None,
        pieces: Callable[[str], Body] | None = None,
        pause: float = 0.0,
        breaks: str = "",
    ) -> None:
        self.pieces, self.pause, self.breaks = pieces, pause, breaks
        self.fault, self.refuse, self.message, self.changed = fault, refuse, message, changed
        self.vllm, self.owner, self.models, self.thinks = vllm, owner, models, thinks
        self.listed, self.elsewhere, self.key, self.delay = listed, elsewhere, key, delay
        self.attempts: Counter[Key] = Counter()
        self.successes: Counter[Key] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.running = self.most_running = self.aborted = 0
        self.tampered: Callable[[list[Any]], Any] = lambda entries: entries
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kill(self) -> None:
        """Breaks all connections and takes no others, until it is started again."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()

    def start(self) -> None:
        """Starts it where it was."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    @property
    def spec(self) -> str:
        return f"openai:{self.url}#{self.models[0]}"

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._chat)
        if self.vllm:
            app.router.add_post("/tokenize", self._tokenize)
            app.router.add_post("/detokenize", self._detokenize)
            app.router.add_post("/v1/completions", self._score)
        app.router.add_route("*", "/{path:.*}", self._other)
        app.on_response_prepare.append(self._ask_to_retry_soon)
        # A handler is cancelled when the client hangs up.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    async def _ask_to_retry_soon(self, request: web.Request, response: Any) -> None:
        self.headers.append(request.headers)
        response.headers["Retry-After"] = "0.05"

    async def _other(self, request: web.Request) -> web.Response:
        return _sent(self.elsewhere)

    async def _list(self, request: web.Request) -> web.Response:
        if self.key is not None and request.headers["Authorization"] != f"Bearer {self.key}":
            return _error(401, "wrong key")
        cards: list[Body] = [{"id": name} for name in self.models]
        for card in cards:
            card["owned_by"] = "vllm" if self.vllm else self.owner
            if "/" in card["id"] and card["id"] != self.models[0]:
                card["parent"] = self.models[0]
            elif self.vllm:
                card["max_model_len"] = CONTEXT
        return _sent(self.listed or (200, {"object": "list", "data": cards}))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            return await self._answer_or_fail(request, body)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _answer_or_fail(self, request: web.Request, body: Body) -> web.StreamResponse:
        prompt = body["messages"][-1]["content"]
        key = (prompt, body.get("seed"))
        kind = self.fault(key, self.attempts[key])
        self.attempts[key] += 1
        if kind is not None:
            self.faults[kind] += 1
            return await self._fail(kind, request)
        length = len(self._render(body))
        if self.vllm and length + body["max_tokens"] > CONTEXT:  # as vLLM's servers used to say it
            return _error(
                400, f"maximum context length is {CONTEXT} tokens; at least {length} given"
            )
        if refusal := self.refuse(body):
            return _sent(refusal)
        self.successes[key] += 1
        if body.get("stream") and self.pieces is not None:
            return await self._stream(request, prompt, "stream_options" in body)
        return web.json_response(self._completion(prompt, body))

    async def _stream(self, request: web.Request, prompt: str, counts: bool) -> web.StreamResponse:
        """The words of the message, then the reason and the usage."""
        assert self.pieces is not None
        words = re.findall(r"\S+\s*", self.message(prompt)["content"])
        ends: dict[str, list[object]] = {
            "": [{"choices": [{"delta": {}, "finish_reason": "stop"}]}],
            "end": [],
            "error": [{"error": {"message": "out of memory"}}],
            "json": ["{"],
        }
        pieces = [{"choices": [self.pieces(word)]} for word in words]
        usage = {"prompt_tokens": 9, "completion_tokens": len(words)}
        last = [{"choices": [], "usage": usage}] if counts else []
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in [*pieces, *ends[self.breaks], *last]:
            line = piece if isinstance(piece, str) else json.dumps(piece)
            await response.write(f"data: {line}\n\n".encode())
            await asyncio.sleep(self.pause)
        await response.write(b"data: [DONE]\n\n")
        return response

    def _completion(self, prompt: str, body: Body) -> Body:
        message = {"role": "assistant", **self.message(prompt)}
        choice: Body = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "t", "logprob": -0.5}] * 3}
        if body.get("return_token_ids"):
            choice["token_ids"] = [7, 8, 1001]
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        answer = {"object": "chat.completion", "choices": [choice], "usage": usage}
        self.changed(answer)
        return answer

    async def _fail(self, kind: str, request: web.Request) -> web.StreamResponse:
        match kind:
            case "slow":
                await asyncio.sleep(30)
            case "cut":
                return await self._cut(request)
            case "garbage":
                return web.Response(text='{"choices": [', content_type="application/json")
            case "page":
                return _sent((200, PAGE))
            case "no_choices":
                return web.json_response({"object": "chat.completion", "choices": []})
        key = request.headers["Authorization"].removeprefix("Bearer ")
        return _error(int(kind), f"scripted for tokens of key {key}\nwith more lines")

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"mess')
        assert request.transport is not None
        request.transport.abort()
        return response

    def _render(self, body: Body) -> list[int]:
        ids: list[int] = []
        for message in body["messages"]:
            ids += [*message["content"].encode(), 1001]
        if body.get("add_generation_prompt", True):
            thinks = (body.get("chat_template_kwargs") or {}).get("think", self.thinks)
            ids += [1000, 1002] if thinks else [1000]
        return ids[:-1] if body.get("continue_final_message") else ids

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" in body:
            return web.json_response({"tokens": self._render(body)})
        text, ids = body["prompt"], []
        while text:
            found = (token for token, spelling in SPECIAL.items() if text.startswith(spelling))
            if token := next(found, None):
                ids.append(token)
                text = text.removeprefix(SPECIAL[token])
            else:
                ids += text[0].encode()
                text = text[1:]
        return web.json_response({"tokens": ids})

    async def _detokenize(self, request: web.Request) -> web.Response:
        tokens = (await request.json())["tokens"]
        text = "".join(SPECIAL.get(token, chr(token % 256)) for token in tokens)
        return web.json_response({"prompt": text})

    async def _score(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["prompt"]
        assert len(prompt) + body["max_tokens"] <= CONTEXT
        entries: list[Any] = [{str(token): {"logprob": -token / 1000}} for token in prompt]
        choice = {"text": "x", "prompt_logprobs": self.tampered([None, *entries[1:]])}
        # NaN is no JSON, but some servers write it.
        return web.Response(text=json.dumps({"choices": [choice]}), content_type="application/json")


def _sent(response: Response) -> web.Response:
    status, content = response
    if isinstance(content, bytes):
        return web.Response(status=status, body=content, content_type="text/html")
    return web.json_response(content, status=status)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)
