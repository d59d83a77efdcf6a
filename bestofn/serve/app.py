"""The server's routes: chat completions, scores, models, health and metrics."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bestofn import concurrency
from bestofn.config.keys import Clients, KeyConfig
from bestofn.config.serving import ServeConfig
from bestofn.prompts import user_message
from bestofn.serve import answers
from bestofn.serve.admission import Admission
from bestofn.serve.border import Border, error_fields, error_response
from bestofn.serve.metrics import Metrics
from bestofn.serve.requests import ChatRequest, RequestError, ScoreRequest, read
from bestofn.serve.service import Plan, Service
from bestofn.types import Usage

Fields = dict[str, Any]
TICK = 0.5  # seconds between looks at the progress of a stream
STARTED = int(time.time())
KEEP_ALIVE = 5.0  # seconds for which a stream is silent at most
STREAMED = {"X-Accel-Buffering": "no"}  # proxies are to pass each event on at once
log = logging.getLogger("bestofn.serve")


class Routes:
    """What answers requests, over the models and with the limits of a configuration."""

    def __init__(self, service: Service, config: ServeConfig) -> None:
        self.service, self.config, self.metrics = service, config, Metrics()
        self.admission = Admission(config.max_running, config.max_waiting)
        admission, engine, watch = self.admission, service.engine, self.metrics.watch
        watch("running", "Requests that are worked on.", lambda: admission.running)
        watch("entered", "Requests that are worked on or wait.", lambda: admission.entered)
        watch("engine_running", "Requests to the engine.", lambda: getattr(engine, "running", 0))

    async def chat(self, request: Request) -> Response:
        body, state = await read(request, ChatRequest), request.state
        self.admission.check(state.client)  # before work is done for a plan, and after it
        plan = await self.service.plan(body, state.client.limits)
        if self.config.log_prompts:
            state.said += f" {user_message(plan.prompt)!r}"
        self.admission.check(state.client)
        drawn: list[int] = []
        work = self._answer(body, plan, state, drawn)
        if not body.stream:
            return JSONResponse(await _until_gone(request, work))
        usage = (body.stream_options or {}).get("include_usage", False)
        events = _events(work, drawn, plan.best.n, usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=STREAMED)

    async def _answer(self, body: ChatRequest, plan: Plan, state: Any, drawn: list[int]) -> Fields:
        """Waits for its turn and selects; the indices of what is drawn are added to `drawn`."""
        service = self.service
        async with self.admission.place(state.client):
            selection = await service.select(plan, lambda c: drawn.append(c.index))
        self.metrics.selection(selection)
        state.said += f" {selection.usage.generated_tokens}+{selection.usage.scored_tokens} tokens"
        if selection.error is not None:
            raise await service.unusable(selection)
        shown = [
            (choice, await service.token_texts(plan.prompt, choice) if body.logprobs else None)
            for choice in answers.chosen(selection, plan.choices)
        ]
        return answers.body(state.id, body.model, selection, shown, body.bestofn.candidates)

    async def score(self, request: Request) -> Response:
        body = await read(request, ScoreRequest)

        async def work() -> Fields:
            async with self.admission.place(request.state.client):
                pools = await self.service.score(body, request.state.client.limits)
            name = self.service.reward(body.reward).name
            usage = sum((c.scores[name].usage for p in pools for c in p.candidates), Usage())
            self.metrics.usage(usage)
            return answers.scores(name, pools, usage)

        return JSONResponse(await _until_gone(request, work()))

    async def models(self) -> Fields:
        return {"object": "list", "data": [await self.model(m) for m in self.service.models()]}

    async def model(self, name: str) -> Fields:
        self.service.named_n(name)
        return {"id": name, "object": "model", "created": STARTED, "owned_by": "bestofn"}

    async def health(self) -> Fields:
        return {"status": "ok"}

    async def ready(self) -> Fields:
        if failure := await self.service.failure():  # which those without a key are not told
            log.warning("not ready: %s", failure)
            raise RequestError("the engine does not work", 503, code="engine_unavailable", wait=5)
        return {"status": "ready", "model": self.service.name}

    async def metrics_text(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")


def create_app(service: Service, config: ServeConfig, keys: Sequence[KeyConfig] = ()) -> Border:
    """The application, for any ASGI server; without keys everyone is let in."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(ClientDisconnect, lambda _, __: Response(status_code=499))
    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, lambda _, error: error_response(error))
    routes = Routes(service, config)
    app.post("/v1/chat/completions")(routes.chat)
    app.post("/v1/score")(routes.score)
    app.get("/v1/models")(routes.models)
    app.get("/v1/models/{name:path}")(routes.model)
    app.get("/health")(routes.health)
    app.get("/ready")(routes.ready)
    app.get("/metrics")(routes.metrics_text)
    return Border(app, Clients(keys, config), config.host, routes.metrics)


async def _events(
    work: Coroutine[Any, Any, Fields], drawn: Sequence[int], n: int, include_usage: bool
) -> AsyncGenerator[str]:
    """Progress as comments, which clients pass over, then the answer as server-sent events."""
    task, said, since = asyncio.ensure_future(work), 0, time.monotonic()
    try:
        yield f": 0 of {n} candidates\n\n"
        while not (await asyncio.wait({task}, timeout=TICK))[0]:
            if len(drawn) > said or time.monotonic() - since > KEEP_ALIVE:
                said, since = len(drawn), time.monotonic()
                yield f": {said} of {n} candidates\n\n"
        for chunk in answers.chunks(task.result(), include_usage):
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    except Exception as error:
        if not isinstance(error, RequestError):
            log.exception("a stream failed")
        yield f"data: {json.dumps(error_fields(error), ensure_ascii=False)}\n\n"
    finally:
        await concurrency.cancel([task])
    yield "data: [DONE]\n\n"


async def _until_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result, unless the client hangs up before it is there; then nothing is left running."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await concurrency.cancel([task, gone])
