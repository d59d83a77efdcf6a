"""Requests to one server: how many at once, which are made again, and what a failure is called."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, TypeVar

from pydantic import BaseModel

from bestofn import loop
from bestofn.errors import ConfigError, EngineError

try:
    import openai
except ImportError as error:
    raise ConfigError(
        "engines of the form 'openai:URL#MODEL' need the openai package: "
        "pip install 'bestofn[openai]'"
    ) from error

A = TypeVar("A", bound=BaseModel)

LONGEST_WAIT = 60.0  # seconds before the next attempt, whatever the server asks for
DOUBLINGS = 16  # of the backoff; more would be cut to the longest wait anyway
CONNECT_TIMEOUT = 10.0  # seconds; a server that is there accepts at once, however busy it is
PASSING = frozenset({408, 409, 425, 429})  # and all from 500 on


class RefusedError(EngineError):
    """The server will not answer this request, however often it is made.

    Attributes:
        status: The HTTP status.
        reason: What the server says.
    """

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"the server at {url} refuses ({status}: {reason}){_remedy(status)}")
        self.status = status
        self.reason = reason


class Server:
    """One server, asked from the package's background loop only.

    Args:
        url: Where its paths begin, mostly ending in /v1.
        api_key: Sent with each request.
        max_concurrency: Requests under way at once.
        timeout: Seconds to wait for an answer.
        max_retries: How often a request is made again.
        backoff: Seconds before the first time, doubled for each further one.
        headers: Sent with each request.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        max_concurrency: int,
        timeout: float,
        max_retries: int,
        backoff: float,
        headers: Mapping[str, str],
    ) -> None:
        self.url = url
        self.max_retries = max_retries
        self.backoff = backoff
        self.timeout = timeout
        self._reached = False
        self._closed = False

        def connect() -> tuple[asyncio.Semaphore, openai.AsyncOpenAI]:
            client = openai.AsyncOpenAI(
                api_key=api_key,
                base_url=url,
                timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
                max_retries=0,  # the client does not retry an answer that cannot be read
                default_headers=headers,
            )
            return asyncio.Semaphore(max_concurrency), client

        self._connection = loop.PerProcess(connect)
        self._connection()

    @property
    def _slots(self) -> asyncio.Semaphore:
        return self._connection()[0]

    @property
    def _client(self) -> openai.AsyncOpenAI:
        return self._connection()[1]

    def beside(self, path: str) -> str:
        """The URL of an endpoint that stands beside /v1, not under it."""
        return f"{self.url.removesuffix('/v1')}/{path}"

    async def get(self, path: str, answer: type[A]) -> A:
        return await self._ask(lambda: self._client.get(path, cast_to=object), answer)

    async def post(self, path: str, body: Mapping[str, Any], answer: type[A]) -> A:
        """The server's answer.

        Raises:
            RefusedError: it refuses the request for good.
            EngineError: it gave no usable answer, however often it was asked; or it was closed.
        """
        return await self._ask(
            lambda: self._client.post(path, cast_to=object, body=dict(body)), answer
        )

    async def _ask(self, send: Callable[[], Awaitable[object]], answer: type[A]) -> A:
        # The slot is kept while waiting: a server that is overloaded gets fewer requests.
        async with self._slots:
            for attempt in range(self.max_retries + 1):
                self._require_open()
                try:
                    return answer.model_validate(await self._once(send))
                # Garbage is a ValueError, whether it is no JSON or not of the answer's form.
                except (openai.APIError, ValueError, TimeoutError) as error:
                    self._require_open()
                    failure = error
                self._raise_final(failure, attempt + 1)
                await asyncio.sleep(self._wait(failure, attempt))
        raise AssertionError("the last failure is final")

    async def _once(self, send: Callable[[], Awaitable[object]]) -> object:
        try:
            # The client's own limit is on the time between two pieces of an answer.
            async with asyncio.timeout(self.timeout):
                data = await send()
        except openai.APIStatusError:
            self._reached = True
            raise
        self._reached = True
        return data

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load it again")

    def _raise_final(self, error: Exception, attempts: int) -> None:
        """Raises unless another attempt may help."""
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            if status not in PASSING and status < 500:
                raise RefusedError(self.url, status, self._reason(error)) from error
        slow = isinstance(error, openai.APITimeoutError) and not _while_connecting(error)
        if isinstance(error, openai.APIConnectionError) and not slow and not self._reached:
            raise EngineError(
                f"no server answers at {self.url}; start it, or correct the URL"
            ) from error
        if attempts > self.max_retries:
            raise EngineError(
                f"the server at {self.url} failed {attempts} times, at last with "
                f"{self._describe(error)}; see to the server, or load the engine with more "
                "max_retries"
            ) from error

    def _wait(self, error: Exception, attempt: int) -> float:
        """Seconds until the next attempt."""
        response = getattr(error, "response", None)
        asked = None if response is None else retry_after(response.headers.get("retry-after"))
        # Requests that failed together shall not come back together.
        backoff = self.backoff * 2.0 ** min(attempt, DOUBLINGS) * random.uniform(0.5, 1.0)
        return min(max(backoff, asked or 0.0), LONGEST_WAIT)

    def _describe(self, error: Exception) -> str:
        match error:
            case openai.APIStatusError():
                return f"status {error.status_code} ({self._reason(error)})"
            case openai.APITimeoutError() | TimeoutError():
                return f"no answer within {self.timeout:g} s"
            case openai.APIConnectionError():
                return "a broken connection"
        return "an answer that cannot be read"

    def _reason(self, error: openai.APIStatusError) -> str:
        """What the server says, in one line, without the key that it may repeat."""
        body = error.body
        said = (body.get("message") or body.get("detail")) if isinstance(body, Mapping) else body
        line = next(iter(str(said or "no reason given").strip().splitlines()), "")
        return line.replace(self._client.api_key, "(key)")[:500].rstrip(".")

    def close(self) -> None:
        """Closes all connections; requests under way fail."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._client.close(), loop.background_loop())


def _while_connecting(error: Exception) -> bool:
    return type(error.__cause__).__name__ == "ConnectTimeout"


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; it holds seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def _remedy(status: int) -> str:
    return {
        401: "; set OPENAI_API_KEY to a key that it takes",
        403: "; use a key that is allowed to use this model",
        404: "; check the URL, which mostly ends in /v1, and the model's name",
    }.get(status, "")
