"""The border: what is let in, within which bounds, and what is written down of it."""

import asyncio
import logging
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from bestofn.config.keys import Client, Clients, Limits
from bestofn.serve.metrics import Metrics
from bestofn.serve.requests import RequestError

HEADER_SECONDS = 10.0  # from the first byte of a request to the end of its headers
BODY_SECONDS = 30.0  # for its body
STALLED_SECONDS = 30.0  # without a byte that the client takes
OPEN = ("/health", "/ready")  # what probes ask, without a key
LOCAL = ("localhost", "127.0.0.1", "::1")
TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
log = logging.getLogger("bestofn.serve")


def error_fields(error: Exception) -> dict[str, Any]:
    """An error in the form of OpenAI's API."""
    status = getattr(error, "status_code", 500)
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    fields: dict[str, Any] = {
        "message": getattr(error, "detail", "") or "the server failed; its log says why",
        "type": kinds.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return {"error": fields}


def error_response(error: Exception) -> JSONResponse:
    """The same as a whole answer."""
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    return JSONResponse(error_fields(error), status, headers=headers)


class Border:
    """Middleware: lets clients in, bounds what they send, and writes a line for each request."""

    def __init__(self, app: Any, clients: Clients, host: str, metrics: Metrics) -> None:
        self._app, self._clients, self._metrics = app, clients, metrics
        self._hosts = {*LOCAL, host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started, status = time.perf_counter(), 499  # where no answer begins the client is gone
        state: dict[str, Any] = {"id": secrets.token_hex(12), "said": ""}
        scope["state"] = state  # handlers add to what is said

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", state["id"].encode()), (b"cache-control", b"no-store")]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            state["client"] = client = self._let_in(scope)
            await self._app(scope, _bounded(client.limits, receive), sending)
        except RequestError as error:
            await error_response(error)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(scope["path"], status, seconds)
            who = getattr(state.get("client"), "name", "")
            shown = f"{scope['method'][:16]} {scope['path'][:80]!r} {status} {seconds:.3f} s"
            log.info("%s %s %s%s", state["id"], who, shown, state["said"])

    def _let_in(self, scope: Scope) -> Client:
        def named(wanted: bytes) -> bytes:
            return b",".join(value for name, value in scope["headers"] if name == wanted)

        if self._clients.known and scope["path"] not in OPEN:
            scheme, _, key = named(b"authorization").partition(b" ")
            client = self._clients.with_key(key.strip()) if scheme.lower() == b"bearer" else None
            if client is None:
                said = "this server needs one of its keys, as 'Authorization: Bearer KEY'"
                raise RequestError(said, 401, code="invalid_api_key")
            return client
        # A page in a browser on this machine could reach the server by a name of its own.
        try:
            host = urlsplit(f"//{named(b'host').decode('latin-1')}").hostname
        except ValueError:
            host = None
        if not self._clients.known and host not in self._hosts:
            raise RequestError("the server has another name; use 127.0.0.1", 403, param="host")
        return self._clients.anyone


def _bounded(limits: Limits, receive: Receive) -> Receive:
    """`receive`, until the body is larger than it may be, or has taken too long."""
    size, deadline, ended = 0, time.monotonic() + BODY_SECONDS, False

    async def receiving() -> Message:
        nonlocal size, ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise RequestError(f"no whole body in {BODY_SECONDS:g} s", 408) from None
        size += len(message.get("body", b""))
        ended = not message.get("more_body")
        if size > limits.max_body:
            raise RequestError(f"the body has more than {limits.max_body} bytes", 413)
        return message

    return receiving


class Protocol(H11Protocol):
    """uvicorn's protocol, with an end to clients that send or take nothing."""

    _request_due: asyncio.TimerHandle | None = None
    _taking_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in filter(None, (self._request_due, self._taking_due)):
            timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._request_due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_request()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._request_due is not None:  # the headers are there
            self._request_due.cancel()
            self._request_due = None

    def _expect_request(self) -> None:
        self._request_due = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.get_write_buffer_size():
            self.transport.write(TIMEOUT)
        self.transport.close()
        self._watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if self._taking_due is None and (left := self.transport.get_write_buffer_size()):
            self._taking_due = self.loop.call_later(STALLED_SECONDS, self._check_reader, left)

    def _check_reader(self, before: int) -> None:
        """Ends the connection if nothing of what was written has been taken since."""
        self._taking_due = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        self._watch_reader()
