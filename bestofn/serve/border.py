"""The border: what is let in, within which bounds, and what is written down of it."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from bestofn.serve.admission import Client, Clients
from bestofn.serve.metrics import Metrics
from bestofn.serve.requests import RequestError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADER_SECONDS = 10.0  # from the first byte of a request to the end of its headers
BODY_SECONDS = 30.0  # for its body
STALLED_SECONDS = 30.0  # without a byte that the client takes
OPEN = ("/health", "/ready")  # what probes ask, without a key
LOCAL = ("localhost", "127.0.0.1", "::1")
TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
log = logging.getLogger("bestofn.serve")


def error_response(error: Exception) -> JSONResponse:
    """An error in the form of OpenAI's API."""
    status = getattr(error, "status_code", 500)
    said = getattr(error, "detail", None) or "the server failed; its log says why"
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    fields = {
        "message": said,
        "type": kinds.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return JSONResponse({"error": fields}, status, headers=getattr(error, "headers", None))


class Border:
    """Middleware: keys, hosts, sizes and times, a line in the log for each request.

    Args:
        app: What answers those that are let in.
        clients: Who they are.
        host: What the server listens on.
        metrics: Counts requests.
    """

    def __init__(self, app: Any, clients: Clients, host: str, metrics: Metrics) -> None:
        self._app, self._clients, self._metrics = app, clients, metrics
        self._hosts = {*LOCAL, host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started, status = time.perf_counter(), 499  # where no answer begins the client has gone
        state: dict[str, Any] = scope.setdefault("state", {})
        state["id"] = secrets.token_hex(12)
        state["said"] = ""  # what the handler adds to the line

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", state["id"].encode()), (b"cache-control", b"no-store")]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            state["client"] = client = self._let_in(scope)
            await self._app(scope, self._bounded(client, scope, receive), sending)
        except RequestError as error:
            await error_response(error)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request(scope["path"], status, seconds)
            name = state.get("client") and state["client"].name
            who = f" by {name}" if name else ""
            shown = f"{scope['method'][:16]} {scope['path'][:80]!r} {status} {seconds:.3f} s"
            log.info("%s %s%s%s", state["id"], shown, who, state["said"])

    def _let_in(self, scope: Scope) -> Client:
        headers = scope["headers"]
        if not self._clients.need_keys:
            # A page in a browser on this machine could reach the server by a name of its own.
            given = b"".join(value for name, value in headers if name == b"host")
            try:
                name = urlsplit(f"//{given.decode('latin-1')}").hostname
            except ValueError:
                name = None
            if name not in self._hosts:
                raise RequestError("the server has another name; use 127.0.0.1", 403, param="host")
        elif scope["path"] in OPEN:
            return Client("", self._clients.limits)
        return self._clients.named_in(headers)

    def _bounded(self, client: Client, scope: Scope, receive: Receive) -> Receive:
        """`receive`, until the body is larger than it may be, or has taken too long."""
        most, size = client.limits.max_body, 0
        deadline: float | None = time.monotonic() + BODY_SECONDS
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal size, deadline
            if lengths and int(lengths[0]) > most:
                raise RequestError(f"the body has more than {most} bytes", 413)
            if deadline is None:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise RequestError(f"no whole body in {BODY_SECONDS:g} s", 408) from None
            size += len(message.get("body", b""))
            if size > most:
                raise RequestError(f"the body has more than {most} bytes", 413)
            if not message.get("more_body"):
                deadline = None
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
        self._request_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._expect_request()
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._request_arrived()

    def _expect_request(self) -> None:
        if self._request_due is None:
            self._request_due = self.loop.call_later(HEADER_SECONDS, self._expire)

    def _request_arrived(self) -> None:
        if self._request_due is not None:
            self._request_due.cancel()
            self._request_due = None

    def _expire(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TIMEOUT)
            self.transport.close()
            self._watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking_due is not None:
            self._taking_due.cancel()
            self._taking_due = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reader()

    def _watch_reader(self) -> None:
        """Ends the connection if none of what is written is taken for a while."""
        if self._taking_due is None and (left := self.transport.get_write_buffer_size()):
            self._taking_due = self.loop.call_later(STALLED_SECONDS, self._check_reader, left)

    def _check_reader(self, before: int) -> None:
        self._taking_due = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_reader()
