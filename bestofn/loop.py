"""The background event loop that runs engines and rewards.

Synchronous calls submit to it, so they work in a script, a notebook and inside a running loop;
asynchronous ones bridge to it from the caller's loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, TypeVar

A = TypeVar("A")
T = TypeVar("T")


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """The package's loop, started in a daemon thread at first use."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bestofn-loop", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an interrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, background_loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Awaits, in any loop, a coroutine that runs in the background loop; cancelling cancels it."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, background_loop()))


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
