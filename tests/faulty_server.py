"""An OpenAI-compatible server in a thread, whose faults are scripted."""

import asyncio
import hashlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Self

from aiohttp import web

Key = tuple[str, int | None]
Fault = Callable[[Key, int], str | None]
"""By prompt and seed, and by the number of the attempt (from 0): the fault's name, if any."""

CONTEXT = 64  # tokens, of one byte each
TOO_LONG = (
    "This model's maximum context length is 100 tokens. However, your messages resulted in 130 "
    "tokens. Please reduce the length of the messages."
)
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
    """Answers every chat request with "answer to PROMPT".

    Args:
        fault: Which attempts fail, and how.
        vllm: Whether to have vLLM's extensions: a context of 64 tokens, /tokenize, scores.
        models: Names of the models; those with a slash are adapters of the first.
        thinks: Whether the chat template opens a thinking tag.
        key: The only key that may see the models; None lets anybody.
        delay: Seconds that each answer takes.
        refusal: How it says that a prompt is too long.

    Attributes:
        attempts: By prompt and seed, how often it was asked for.
        times: By prompt and seed, when (seconds on the loop's clock).
        successes: By prompt and seed, how many whole answers were sent.
        faults: By kind, how many were injected.
        requests: Bodies of all chat requests.
        most_running: The most requests under way at once.
        aborted: Requests whose connection the client closed.
        tampered: Changes the scores before they are sent.
    """

    def __init__(
        self,
        fault: Fault = no_fault,
        *,
        vllm: bool = False,
        models: tuple[str, ...] = ("model",),
        thinks: bool = False,
        key: str | None = None,
        delay: float = 0.0,
        answer: Callable[[str], dict[str, Any]] | None = None,
        refusal: str = TOO_LONG,
    ) -> None:
        self.refusal = refusal
        self.fault = fault
        self.vllm = vllm
        self.models = models
        self.thinks = thinks
        self.key = key
        self.delay = delay
        self.answer = answer or (lambda prompt: {"content": f"answer to {prompt}"})
        self.attempts: Counter[Key] = Counter()
        self.times: defaultdict[Key, list[float]] = defaultdict(list)
        self.successes: Counter[Key] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.running = 0
        self.most_running = 0
        self.aborted = 0
        self.retry_after: str = "0.05"
        self.tampered: Callable[[list[Any]], Any] = lambda entries: entries
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
        app.on_response_prepare.append(self._ask_to_retry_soon)
        # A handler is cancelled when the client hangs up.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _ask_to_retry_soon(self, request: web.Request, response: Any) -> None:
        response.headers["Retry-After"] = self.retry_after

    async def _list(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        if self.key is not None and request.headers["Authorization"] != f"Bearer {self.key}":
            return _error(401, "wrong key")
        cards: list[dict[str, Any]] = [{"id": name} for name in self.models]
        for card in cards:
            card["owned_by"] = "vllm" if self.vllm else "someone"
            if "/" in card["id"]:
                card["parent"] = self.models[0]
            elif self.vllm:
                card["max_model_len"] = CONTEXT
        return web.json_response({"object": "list", "data": cards})

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

    async def _answer_or_fail(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        prompt = body["messages"][-1]["content"]
        key = (prompt, body.get("seed"))
        kind = self.fault(key, self.attempts[key])
        self.attempts[key] += 1
        self.times[key].append(self._loop.time())
        if kind is not None:
            self.faults[kind] += 1
            return await self._fail(kind, request)
        refusal = self._too_long(body) if self.vllm else None
        if refusal is not None:
            return refusal
        self.successes[key] += 1
        return web.json_response(self._completion(prompt, body))

    def _completion(self, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", **self.answer(prompt)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "t", "logprob": -0.5}] * 3}
        if body.get("return_token_ids"):
            choice["token_ids"] = [7, 8, 1001]
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    async def _fail(self, kind: str, request: web.Request) -> web.StreamResponse:
        match kind:
            case "slow":
                await asyncio.sleep(30)
            case "cut":
                return await self._cut(request)
            case "garbage":
                return web.Response(text='{"choices": [', content_type="application/json")
            case "page":
                return web.Response(text="<html>busy</html>", content_type="text/html")
            case "no_choices":
                return web.json_response({"object": "chat.completion", "choices": []})
            case "429":
                return _error(429, "too many requests")
            case "too_long":
                return _error(400, self.refusal)
        key = request.headers["Authorization"].removeprefix("Bearer ")
        return _error(int(kind), f"scripted failure for key {key}\nwith more lines")

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"mess')
        assert request.transport is not None
        request.transport.abort()
        return response

    def _too_long(self, body: dict[str, Any]) -> web.Response | None:
        """The refusal of a request that does not fit, as vLLM's servers used to do it."""
        length = len(self._render(body))
        if length + body["max_tokens"] <= CONTEXT:
            return None
        return _error(400, f"maximum context length is {CONTEXT} tokens; at least {length} given")

    def _render(self, body: dict[str, Any]) -> list[int]:
        ids: list[int] = []
        for message in body["messages"]:
            ids += [*message["content"].encode(), 1001]
        if body.get("add_generation_prompt", True):
            thinks = (body.get("chat_template_kwargs") or {}).get("think", self.thinks)
            ids += [1000, 1002] if thinks else [1000]
        return ids

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" in body:
            return web.json_response({"tokens": self._render(body)})
        text, ids = body["prompt"], []
        while text:
            for token, spelling in SPECIAL.items():
                if text.startswith(spelling):
                    ids.append(token)
                    text = text.removeprefix(spelling)
                    break
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


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)
