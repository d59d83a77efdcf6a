"""The server's routes: chat completions, scores, models, health and metrics."""

import asyncio
import difflib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

import bestofn
from bestofn import concurrency
from bestofn.config.serving import KeyConfig, ServeConfig
from bestofn.prompts import user_message
from bestofn.serve.admission import Admission, Clients, Ticket
from bestofn.serve.answers import DONE, Answer, chosen, cost, score_body
from bestofn.serve.border import Border, error_response
from bestofn.serve.metrics import Metrics
from bestofn.serve.requests import ChatRequest, RequestError, ScoreRequest
from bestofn.serve.service import Plan, Service
from bestofn.types import Candidate

T = TypeVar("T")

TICK = 0.5  # seconds between looks at the progress of a stream
KEEP_ALIVE = 5.0  # seconds for which a stream is silent at most
EVENTS = {"X-Accel-Buffering": "no"}  # proxies are to pass each event on at once
log = logging.getLogger("bestofn.serve")


class HungUpError(Exception):
    """The client has hung up."""


def create_app(service: Service, config: ServeConfig, keys: Sequence[KeyConfig] = ()) -> Border:
    """The application, for any ASGI server.

    Args:
        service: The models.
        config: Limits and what else holds.
        keys: Who is let in; without any everyone is.
    """
    metrics = Metrics()
    admission = Admission(config.max_running, config.max_waiting)
    app = FastAPI(
        title="bestofn",
        version=bestofn.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HungUpError, lambda _, __: Response(status_code=499))
    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, lambda _, error: error_response(error))
    metrics.watch("running", "Requests that are worked on.", lambda: admission.running)
    metrics.watch("waiting", "Requests that wait.", lambda: admission.waiting)
    if hasattr(service.engine, "running"):
        said = "Requests that the engine has not finished."
        metrics.watch("engine_running", said, lambda: getattr(service.engine, "running", 0))

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        state = request.state
        plan = service.plan(body, state.client.limits)
        if config.log_prompts:
            state.said += f" {user_message(plan.prompt)!r}"
        chat = _Chat(service, admission.enter(state.client), plan, body, state, metrics)
        if body.stream:
            return _Stream(chat)
        try:
            return JSONResponse((await _until_gone(request, chat.answer())).body())
        finally:
            chat.ticket.close()

    @app.post("/v1/score")
    async def score(body: ScoreRequest, request: Request) -> Response:
        client = request.state.client
        if body.model is not None:
            service.require_model(body.model, body.model)
        ticket = admission.enter(client)

        async def work() -> Response:
            async with ticket.place():
                with concurrency.at_place(ticket.number):
                    pools = await service.score(body)
            name = service.reward(body.reward).name
            metrics.usage(cost(pools, name))
            return JSONResponse(score_body(name, pools))

        try:
            return await _until_gone(request, work())
        finally:
            ticket.close()

    @app.get("/v1/models")
    async def models() -> Response:
        own = {"object": "model", "created": int(time.time()), "owned_by": "bestofn"}
        return JSONResponse(
            {"object": "list", "data": [{"id": m, **own} for m in service.models()]}
        )

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        if failure := await service.failure():
            raise RequestError(failure, 503, code="engine_unavailable", retry_after=5)
        return JSONResponse({"status": "ready", "model": service.name})

    @app.get("/metrics")
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return Border(app, Clients(keys, config), config.host, metrics)


class _Chat:
    """One request for an answer."""

    def __init__(
        self,
        service: Service,
        ticket: Ticket,
        plan: Plan,
        request: ChatRequest,
        state: Any,
        metrics: Metrics,
    ) -> None:
        self.ticket, self.request, self.drawn = ticket, request, 0
        self._service, self._plan, self._state, self._metrics = service, plan, state, metrics

    async def answer(self) -> Answer:
        """Waits for its turn, and selects."""
        service, plan = self._service, self._plan
        async with self.ticket.place():
            with concurrency.at_place(self.ticket.number):
                selection = await service.select(plan, self._state.client.limits, self._count)
        self._metrics.selection(selection)
        usage = selection.usage
        self._state.said += f" {usage.generated_tokens}+{usage.scored_tokens} tokens"
        choices = chosen(selection, plan.choices)
        named: list[list[str] | None] = [None] * len(choices)
        if self.request.logprobs:
            named = [await service.token_texts(plan.prompt, choice) for choice in choices]
        shown = self.request.bestofn.candidates
        return Answer(self._state.id, self.request.model, selection, choices, named, shown)

    def _count(self, candidate: Candidate) -> None:
        self.drawn += 1

    async def events(self) -> AsyncGenerator[str]:
        """Progress as comments, which clients pass over, then the answer."""
        options = self.request.stream_options
        task = asyncio.ensure_future(self.answer())
        n, said, since = self._plan.best.n, 0, time.monotonic()
        try:
            yield f": 0 of {n} candidates\n\n"
            while not (await asyncio.wait({task}, timeout=TICK))[0]:
                if self.drawn > said or time.monotonic() - since > KEEP_ALIVE:
                    said, since = self.drawn, time.monotonic()
                    yield f": {said} of {n} candidates\n\n"
            for piece in task.result().events(bool(options and options.include_usage)):
                yield piece
        except RequestError as error:
            yield f"data: {bytes(error_response(error).body).decode()}\n\n"
        except Exception as error:
            log.exception("%s failed", self._state.id)
            yield f"data: {bytes(error_response(error).body).decode()}\n\n"
        finally:
            await concurrency.cancel([task])
        yield DONE


class _Stream(StreamingResponse):
    """The events of a request; however it ends, nothing of it is left running."""

    def __init__(self, chat: _Chat) -> None:
        self._chat, self._events = chat, chat.events()
        super().__init__(self._events, media_type="text/event-stream", headers=EVENTS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._chat.ticket.close()


async def _until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result, unless the client hangs up before it is there; then nothing is left running."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HungUpError
        return task.result()
    finally:
        await concurrency.cancel([task, gone])


# --- errors ---------------------------------------------------------------------------------------


def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    kind, said = first["type"], str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        refusal = RequestError(f"the body is not JSON: {first['ctx']['error']}")
    elif not place:
        refusal = RequestError("the body is a JSON object, with content-type: application/json")
    elif kind == "extra_forbidden":
        known = {**ChatRequest.model_fields, **ScoreRequest.model_fields}
        near = difflib.get_close_matches(place[-1], known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        refusal = RequestError(f"unknown field {'.'.join(place)[:80]!r}{hint}")
    else:
        refusal = RequestError(f"the field {'.'.join(place)[:80]!r} is wrong: {said}")
    refusal.param = ".".join(place)[:80] or None
    return error_response(refusal)
