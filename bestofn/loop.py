"""The background event loop that runs engines and rewards.

Synchronous calls submit to it, so they work in a script, a notebook and inside a running loop;
asynchronous ones bridge to it from the caller's loop.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 2.0  # seconds that a cancelled call gets to clean up


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """The package's loop, started in a daemon thread at first use."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bestofn-loop", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an interrupt cancels it and waits for it to clean up."""
    return _wait(asyncio.run_coroutine_threadsafe(coroutine, background_loop()))


def _wait(future: Future[T]) -> T:
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Awaits, in any loop, a coroutine that runs in the background loop; cancelling cancels it."""
    return await asyncio.wrap_future(
        asyncio.run_coroutine_threadsafe(coroutine, background_loop())
    )


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an async iterator that runs in the background loop.

    However the iteration ends, the async iterator is closed before this returns.
    """
    try:
        while True:
            try:
                yield run(_next(items))
            except StopAsyncIteration:
                return
    finally:
        run(_close(items))


async def aiterate(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same, for an async iteration in any loop."""
    try:
        while True:
            try:
                yield await bridge(_next(items))
            except StopAsyncIteration:
                return
    finally:
        await bridge(_close(items))


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[T]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
