"""The background event loop that runs engines and rewards.

Synchronous calls submit to it, so they work in a script, a notebook and inside a running loop;
asynchronous ones bridge to it from the caller's loop.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from bestofn.errors import ConfigError, OtherProcessError

A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R")

GRACE = 1.5  # seconds that cancelled work gets to clean up


class PerProcess(Generic[T]):
    """What has threads or connections: made at first use, and anew in a process that was forked.

    Such a process inherits objects, but no threads, and shares connections with its parent. What
    it inherited is kept untouched, since to end it would reach into the parent.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        pid = os.getpid()
        if pid not in self._made:
            self._made.setdefault(pid, self._make())
        return self._made[pid]


def require_process(pid: int, what: str) -> None:
    """Refuses what lives in another process than this one.

    Raises:
        OtherProcessError: `pid` is not this process.
    """
    if pid != os.getpid():
        raise OtherProcessError(
            f"{what} works only in the process that made it, not in one that was forked later; "
            "start processes by the method 'spawn' and make it in each of them"
        )


def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bestofn-loop", daemon=True).start()
    return loop


_loops = PerProcess(_start_loop)


def background_loop() -> asyncio.AbstractEventLoop:
    """The package's loop, started in a daemon thread at first use; a forked process has its own."""
    return _loops()


def _on_background_loop() -> bool:
    try:
        return asyncio.get_running_loop() is background_loop()
    except RuntimeError:
        return False


class _Call(Generic[T]):
    """A coroutine that runs in the background loop.

    Unlike that of `asyncio.run_coroutine_threadsafe`, its future is done only when nothing of the
    coroutine runs any more, however it ends.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self.future.set_running_or_notify_cancel()
        self._task: asyncio.Task[T] | None = None
        self._loop = background_loop()
        self._loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def done(self) -> bool:
        return self.future.done()

    def is_inherited(self) -> bool:
        """Whether it runs in the process that this one was forked from."""
        return self._loop is not background_loop()

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())


def _stop(calls: Iterable[_Call[Any]]) -> None:
    """Cancels calls and waits until they have cleaned up, unless that would block their loop."""
    calls = [call for call in calls if not call.is_inherited()]
    for call in calls:
        call.cancel()
    if not _on_background_loop():
        wait_for([call.future for call in calls], GRACE)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an interrupt cancels it.

    Raises:
        ConfigError: called from within the background loop, which would wait for itself.
    """
    if _on_background_loop():
        coroutine.close()
        raise ConfigError(
            "a synchronous call inside a reward or an async generator would wait for itself; "
            "await `aselect` or `aselect_many` there"
        )
    call = _Call(coroutine)
    try:
        return call.future.result()
    except KeyboardInterrupt:
        _stop([call])
        raise


def call(function: Callable[[], object]) -> None:
    """Runs a function in the background loop and waits for it, for a moment at most."""
    if _on_background_loop():
        function()
        return
    done = threading.Event()

    def work() -> None:
        try:
            function()
        finally:
            done.set()

    background_loop().call_soon_threadsafe(work)
    done.wait(GRACE)


def off_background_loop(function: Callable[[], object]) -> None:
    """Runs what takes long: here, or in a thread of its own where "here" is the background loop."""
    if _on_background_loop():
        threading.Thread(target=function, name="bestofn-close").start()
    else:
        function()


async def bridge(coroutine: Coroutine[Any, Any, T]) -> T:
    """Awaits, in any loop, a coroutine that runs in the background loop; cancelling cancels it."""
    call = _Call(coroutine)
    result = asyncio.wrap_future(call.future)
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        # Nobody is left to ask how it ended.
        result.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.to_thread(_stop, [call])
        raise


async def on_background_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Awaits in any loop, this one included, what has to run in the background loop."""
    return await (coroutine if _on_background_loop() else bridge(coroutine))


_place: ContextVar[int] = ContextVar("place", default=0)


def place_in_run() -> int:
    """Which item of a run the current work is for, from 0.

    Engines serve those of low places first, so that the earliest prompts of a run finish first.
    """
    return _place.get()


class Window:
    """How many items are in flight: it follows the time that they take.

    It begins with as many as fill the batch of a fast engine. It shrinks by one with each item that
    took longer than `PATIENCE`, so that less is lost of a slow engine's work when a run is killed,
    and grows again while items take less.

    Args:
        at_once: Requests that an item makes at once.
    """

    LEAST, MOST = 256, 512  # requests; the least is one batch of vLLM
    PATIENCE = 20.0  # seconds

    def __init__(self, at_once: int) -> None:
        self.least = max(1, self.LEAST // at_once)
        self.most = self.size = max(1, self.MOST // at_once)

    async def timed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of an item's work, whose time is taken into account."""
        started = time.monotonic()
        result = await work
        if time.monotonic() - started < self.PATIENCE:
            self.size = min(self.size + 1, self.most)
        else:
            self.size = max(self.size - 1, self.least)
        return result


class FixedWindow(Window):
    """A number of items in flight that stays as it is."""

    def __init__(self, size: int) -> None:
        self.least = self.size = self.most = size


class _Source(Generic[A]):
    """Items that are read as they are needed; a failure to read one is kept for later."""

    def __init__(self, items: Iterable[A]) -> None:
        self._items = iter(items)
        self._taken = 0
        self.failure: Exception | None = None
        self.exhausted = False

    def fill(
        self,
        running: deque[R],
        window: Window,
        start: Callable[[A], R],
        ready: Callable[[], bool],
    ) -> None:
        """Starts items until the window is full, or a result is ready to be given on."""
        while not self.exhausted and len(running) < window.size:
            # The caller need not wait for a slow source.
            if running and ready():
                return
            try:
                item = next(self._items)
            except StopIteration:
                self.exhausted = True
            except Exception as error:
                self.failure, self.exhausted = error, True
            else:
                token = _place.set(self._taken)
                running.append(start(item))
                _place.reset(token)
                self._taken += 1

    def close(self) -> None:
        if self.failure is not None:
            raise self.failure


def map_in_window(
    work: Callable[[A], Coroutine[Any, Any, T]],
    items: Iterable[A],
    window: int | Window,
    *,
    ordered: bool = True,
) -> Iterator[T]:
    """The results of `work` on each item, with at most a window of items under way.

    They come in the order of the items, or as they are ready. Items are read in the caller's
    thread, as they are needed. If reading one fails, the results of those before it come first.
    However the iteration ends, no work is left running.
    """
    source, running, finished = _Source(items), deque[_Call[T]](), SimpleQueue[_Call[T]]()
    flight = window if isinstance(window, Window) else FixedWindow(window)
    pid = os.getpid()

    def start(item: A) -> _Call[T]:
        call = _Call(flight.timed(work(item)))
        if not ordered:
            call.future.add_done_callback(lambda _: finished.put(call))
        return call

    def ready() -> bool:
        return running[0].done() if ordered else not finished.empty()

    try:
        while True:
            require_process(pid, "an iteration that has begun")
            source.fill(running, flight, start, ready)
            if not running:
                source.close()
                return
            call = running[0] if ordered else finished.get()
            result = call.future.result()
            running.remove(call)
            yield result
    finally:
        _stop(running)


async def amap_in_window(
    work: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], window: int | Window
) -> AsyncGenerator[T]:
    """The same for an async iteration in any loop."""
    source, running = _Source(items), deque[asyncio.Task[T]]()
    flight = window if isinstance(window, Window) else FixedWindow(window)
    try:
        while True:
            source.fill(
                running,
                flight,
                lambda item: asyncio.create_task(bridge(flight.timed(work(item)))),
                lambda: running[0].done(),
            )
            if not running:
                source.close()
                return
            result = await running[0]
            running.popleft()
            yield result
    finally:
        await cancel(running)


async def gather(*work: Awaitable[T]) -> list[T]:
    """The results of all; if one fails the others are cancelled, and gone before it is raised."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)


async def cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels what still runs and waits until it is gone."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
