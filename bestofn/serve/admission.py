"""Who may ask, and when their turn is: keys with limits, and the queue."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import count
from math import ceil
from time import monotonic

from bestofn.config.serving import KeyConfig, Limits
from bestofn.serve.requests import RequestError

LONGEST_WAIT = 60  # seconds that a client is told to wait at most
SMOOTHING = 0.1  # the weight of the last request in the mean duration


class Client:
    """One who is let in, with the requests of theirs that are not answered yet."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name, self.limits = name, limits
        self.open = 0


class Clients:
    """Those who are let in, by their keys; without keys everyone is, as one client."""

    def __init__(self, keys: Sequence[KeyConfig], limits: Limits) -> None:
        self._known = [(_digest(key.key), Client(key.name, key.limits(limits))) for key in keys]
        self._anyone = None if keys else Client("", limits)
        self.limits = limits

    @property
    def need_keys(self) -> bool:
        return self._anyone is None

    def named_in(self, headers: Sequence[tuple[bytes, bytes]]) -> Client:
        """The client of a request; all keys are compared, each in constant time.

        Raises:
            RequestError: it has no key, or none of these.
        """
        if self._anyone is not None:
            return self._anyone
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer":
            raise RequestError(
                "this server needs a key, as one header 'Authorization: Bearer KEY'",
                401,
                code="invalid_api_key",
            )
        digest = sha256(key.strip()).digest()
        found = [client for own, client in self._known if hmac.compare_digest(own, digest)]
        if not found:
            raise RequestError("the key is none that is let in", 401, code="invalid_api_key")
        return found[0]


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


class Admission:
    """Lets so many requests run at once and so many wait, first come first served."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._most_running, self._most_waiting = running, waiting
        self._numbers = count()
        self._mean = 1.0  # seconds of a request
        self.running = self.waiting = 0

    def enter(self, client: Client) -> "Ticket":
        """A ticket, which has to be closed.

        Raises:
            RequestError: too many wait, or too many of this client's are open.
        """
        if client.open >= client.limits.max_requests:
            raise self._busy(f"{client.open} requests are open with this key, which is the limit")
        if self.running + self.waiting >= self._most_running + self._most_waiting:
            raise self._busy(f"{self.running} requests run and {self.waiting} wait")
        return Ticket(self, client, next(self._numbers))

    def _busy(self, said: str) -> RequestError:
        turns = (self.waiting + 1) / self._most_running
        wait = min(LONGEST_WAIT, max(1, ceil(turns * self._mean)))
        return RequestError(f"{said}; come again later", 429, code="queue_full", retry_after=wait)

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Waits for a place, and holds it."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        started = monotonic()
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
            self._mean += SMOOTHING * (monotonic() - started - self._mean)


class Ticket:
    """One request, from its arrival to the end of its answer."""

    def __init__(self, admission: Admission, client: Client, number: int) -> None:
        self._client, self.place, self.number = client, admission.place, number
        client.open += 1

    def close(self) -> None:
        """Gives it back; to be called once."""
        self._client.open -= 1
