"""Requests to one server: how many at once, which are made again, and what a failure is called."""

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, TypeVar

import openai
from pydantic import BaseModel, ValidationError

from bestofn import concurrency
from bestofn.engines.openai.client import make_client, proxy_variable
from bestofn.engines.openai.failures import (
    ErrorAnswer,
    RefusedError,
    UnusableError,
    as_unusable,
    may_pass,
    one_line,
    raise_error_within,
    said_in,
)
from bestofn.errors import EngineError
from bestofn.redaction import is_secret, redacted

A = TypeVar("A", bound=BaseModel)
Failure = openai.APIError | ErrorAnswer | UnusableError | TimeoutError

GARBLED = (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError)
LONGEST_WAIT = 60.0  # seconds before the next attempt, whatever the server asks for
UNUSABLE_RETRIES = 2  # what a server answers three times is no passing fault
DOUBLINGS = 16  # of the backoff; more would be cut to the longest wait anyway
NO_KEY = "no-key-needed"  # local servers take any; the client insists on one
SCHEME = re.compile(r"(?i)(basic|bearer|digest|token|apikey) ")


class Server:
    """One server, asked from the package's background loop only.

    Args:
        url: Where its paths begin, mostly ending in /v1.
        api_key: Sent with each request; None where the server needs none.
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
        api_key: str | None,
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
        key = (api_key or "").strip()
        self._secrets = _secrets(key, headers)

        def connect() -> tuple[asyncio.Semaphore, openai.AsyncOpenAI]:
            return asyncio.Semaphore(max_concurrency), make_client(
                url, key or NO_KEY, timeout, headers
            )

        self._connection = concurrency.PerProcess(connect)
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
        """The server's answer.

        Raises:
            RefusedError: it refuses the request for good.
            UnusableError: the answer is of another form.
            EngineError: it gave no answer, however often it was asked; or it was closed.
        """
        return await self._ask(
            lambda: self._client.get(path, cast_to=object), answer, retry_unusable=False
        )

    async def post(self, path: str, body: Mapping[str, Any], answer: type[A]) -> A:
        """The server's answer.

        Raises:
            RefusedError: it refuses the request for good.
            EngineError: it gave no usable answer, however often it was asked; or it was closed.
        """
        return await self._ask(
            lambda: self._client.post(path, cast_to=object, body=dict(body)), answer
        )

    async def _ask(
        self, send: Callable[[], Awaitable[object]], answer: type[A], retry_unusable: bool = True
    ) -> A:
        # The slot is kept while waiting: a server that is overloaded gets fewer requests.
        unusable = 0
        async with self._slots:
            for attempt in range(self.max_retries + 1):
                self._require_open()
                try:
                    return self._read(await self._once(send), answer)
                except (openai.APIError, ErrorAnswer, UnusableError, TimeoutError) as error:
                    self._require_open()
                    failure = error
                if isinstance(failure, UnusableError):
                    unusable += 1
                    if not retry_unusable:
                        raise failure
                last = attempt == self.max_retries or unusable > UNUSABLE_RETRIES
                self._raise_final(failure, attempt + 1, last)
                await asyncio.sleep(self._wait(failure, attempt))
        raise AssertionError("the last failure is final")

    def _read(self, data: object, answer: type[A]) -> A:
        raise_error_within(data)
        try:
            return answer.model_validate(data)
        except ValidationError as error:
            raise as_unusable(self.url, data, error) from None

    async def _once(self, send: Callable[[], Awaitable[object]]) -> object:
        try:
            # The client's own limit is on the time between two pieces of an answer.
            async with asyncio.timeout(self.timeout):
                data = await send()
        except openai.APIStatusError:
            self._reached = True
            raise
        except GARBLED as error:
            self._reached = True
            raise as_unusable(self.url, None, error) from None
        self._reached = True
        return data

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load it again")

    def _raise_final(self, error: Failure, attempts: int, last: bool) -> None:
        """Raises unless another attempt may help."""
        match error:
            case openai.APIStatusError() | ErrorAnswer():
                if not may_pass(error.status_code, error.body):
                    raise self._refusal(error) from None  # its cause may repeat the key
        slow = isinstance(error, openai.APITimeoutError) and not _while_connecting(error)
        if isinstance(error, openai.APIConnectionError) and not slow and not self._reached:
            raise EngineError(self._unreachable(error)) from error
        if last:
            more = attempts > self.max_retries
            raise EngineError(
                f"the server at {self.url} failed {attempts} times, at last with "
                f"{self._describe(error)}; see to the server"
                + (", or load the engine with more max_retries" if more else "")
            ) from None

    def _refusal(self, error: openai.APIStatusError | ErrorAnswer) -> RefusedError:
        said = said_in(error.body)
        reason = one_line(redacted(said, self._secrets))
        param = error.body.get("param") if isinstance(error.body, Mapping) else None
        return RefusedError(self.url, error.status_code, reason, said=said, param=param)

    def _unreachable(self, error: openai.APIConnectionError) -> str:
        if "[SSL" in (cause := str(error.__cause__)):
            return (
                f"no secure connection to {self.url} ({cause}); write http:// if the server speaks "
                "no HTTPS, or set SSL_CERT_FILE to the certificate of its authority"
            )
        proxy = proxy_variable(self.url)
        if proxy is None:
            return f"no server answers at {self.url}; start it, or correct the URL"
        return (
            f"no server answers at {self.url} through the proxy in {proxy}; start it, correct "
            "the URL or the proxy, or name the host in NO_PROXY"
        )

    def _wait(self, error: Exception, attempt: int) -> float:
        """Seconds until the next attempt."""
        response = getattr(error, "response", None)
        asked = None if response is None else retry_after(response.headers.get("retry-after"))
        # Requests that failed together shall not come back together.
        backoff = self.backoff * 2.0 ** min(attempt, DOUBLINGS) * random.uniform(0.5, 1.0)
        return min(max(backoff, asked or 0.0), LONGEST_WAIT)

    def _describe(self, error: Failure) -> str:
        match error:
            case openai.APIStatusError() | ErrorAnswer():
                reason = one_line(redacted(said_in(error.body), self._secrets))
                return f"status {error.status_code} ({reason})"
            case openai.APITimeoutError() | TimeoutError():
                return f"no answer within {self.timeout:g} s"
            case UnusableError():
                return error.what
        return "a broken connection"

    def close(self) -> None:
        """Closes all connections; requests under way fail."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._client.close(), concurrency.background_loop())


def _secrets(key: str, headers: Mapping[str, str]) -> set[str]:
    """What no message may hold: the key, and the values of headers whose names say so."""
    values = [key, *(str(value).strip() for name, value in headers.items() if is_secret(name))]
    # Behind a scheme, such as "Bearer", the rest is the secret.
    bare = [value.partition(" ")[2] for value in values if SCHEME.match(value)]
    return {value for value in (*values, *bare) if value}


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
