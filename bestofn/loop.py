"""The background event loop that runs engines and rewards.

Synchronous calls submit to it, so they work in a script, a notebook and inside a running loop;
asynchronous ones bridge to it from the caller's loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from functools import cache
from itertools import islice
from typing import Any, TypeVar

A = TypeVar("A")
T = TypeVar("T")

GRACE = 1.5  # seconds that a cancelled coroutine gets to clean up


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """The package's loop, started in a daemon thread at first use."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bestofn-loop", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an interrupt cancels it and waits until it has cleaned up."""
    future, ended = _submit(coroutine)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        ended.wait(GRACE)
        raise


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """The same from any loop: cancelling the wait cancels the coroutine."""
    future, ended = _submit(coroutine)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        await asyncio.to_thread(ended.wait, GRACE)
        raise


def _submit(coroutine: Coroutine[Any, Any, T]) -> tuple[Future[T], threading.Event]:
    """Starts a coroutine in the background loop; the event says that nothing of it runs any more.

    A cancelled future is done at once, though its coroutine still has to clean up.
    """
    ended = threading.Event()

    async def watched() -> T:
        try:
            return await coroutine
        finally:
            ended.set()

    return asyncio.run_coroutine_threadsafe(watched(), background_loop()), ended


def iterate(items: AsyncGenerator[T]) -> Iterator[T]:
    """The items of an async generator that runs in the background loop.

    However the iteration ends, the generator is closed before this returns.
    """
    try:
        while True:
            try:
                yield run(anext(items))
            except StopAsyncIteration:
                return
    finally:
        run(items.aclose())


async def aiterate(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The same, for an async iteration in any loop."""
    try:
        while True:
            try:
                yield await bridge(anext(items))
            except StopAsyncIteration:
                return
    finally:
        await bridge(items.aclose())


async def in_window(
    work: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], window: int
) -> AsyncGenerator[T]:
    """The results of `work` on each item, in order, with at most `window` items under way.

    Items are read as they are needed. However the iteration ends, no work is left running.
    """
    source = iter(items)
    running: deque[asyncio.Task[T]] = deque()
    try:
        while True:
            for item in islice(source, window - len(running)):
                running.append(asyncio.create_task(work(item)))
            if not running:
                return
            yield await running[0]
            running.popleft()
    finally:
        await cancel(running)


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels what still runs and waits until it is gone."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
