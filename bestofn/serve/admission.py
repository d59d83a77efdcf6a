"""When the turn of a request is: the queue."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import ceil
from time import monotonic

from bestofn.config.keys import Client
from bestofn.serve.requests import RequestError

LONGEST_WAIT = 60  # the largest Retry-After, in seconds
SMOOTHING = 0.1  # the weight of the last request in the mean duration


class Admission:
    """Lets so many requests run at once and so many wait, first come first served."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._most_running, self._most = running, running + waiting
        self._mean = 1.0  # seconds of a request
        self.entered = self.running = 0

    def check(self, client: Client) -> None:
        """Raises RequestError where a client, or all together, have as many requests as they may.

        How long to wait is estimated from how long others took.
        """
        if client.open < client.limits.max_requests and self.entered < self._most:
            return
        rounds = (self.entered - self.running + 1) / self._most_running
        wait = max(1, min(LONGEST_WAIT, ceil(rounds * self._mean)))
        said = f"{self.entered} requests run or wait, {client.open} of them with this key"
        raise RequestError(f"{said}; come again", 429, code="queue_full", wait=wait)

    @asynccontextmanager
    async def place(self, client: Client) -> AsyncGenerator[None]:
        """Waits for a place among those that run, and holds it; raises as `check` does."""
        self.check(client)
        client.open, self.entered = client.open + 1, self.entered + 1
        try:
            async with self._places:
                self.running += 1
                started = monotonic()
                try:
                    yield
                finally:
                    self.running -= 1
                    self._mean += SMOOTHING * (monotonic() - started - self._mean)
        finally:
            client.open, self.entered = client.open - 1, self.entered - 1
