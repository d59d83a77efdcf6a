"""The background event loop that runs engines and rewards, for synchronous and async callers."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from bestofn.errors import ConfigError, OtherProcessError

A = TypeVar("A")
T = TypeVar("T")

GRACE = 1.5  # seconds that cancelled work gets to clean up


class PerProcess(Generic[T]):
    """What has threads or connections: made at first use, and anew in a process that was forked."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        pid = os.getpid()
        return self._made[pid] if pid in self._made else self._made.setdefault(pid, self._make())


def require_process(pid: int, what: str) -> None:
    """Raises OtherProcessError unless `pid` is this process."""
    if pid != os.getpid():
        raise OtherProcessError(
            f"{what} works only in the process that made it, not in one that was forked later; "
            "start processes by the method 'spawn' and make it in each of them"
        )


def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bestofn-loop", daemon=True).start()
    return loop


background_loop = PerProcess(_start_loop)


def _on_background_loop() -> bool:
    try:
        return asyncio.get_running_loop() is background_loop()
    except RuntimeError:
        return False


class _Call(Future[T]):
    """A coroutine in the background loop; done when nothing of it runs any more."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.loop = background_loop()
        self.loop.call_soon_threadsafe(self._start, coroutine)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self.loop.create_task(coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        try:
            self.set_result(task.result())
        except BaseException as error:
            self.set_exception(error)

    def cancel(self) -> bool:
        """Asks the coroutine to end, once; the call is done when it has cleaned up."""
        self.loop.call_soon_threadsafe(lambda: self._task.cancelling() or self._task.cancel())
        return False


def _stop(calls: Iterable[_Call[Any]]) -> None:
    """Cancels calls and waits until they have cleaned up, unless that would block their loop."""
    own = [call for call in calls if call.loop is background_loop()]  # others are the parent's
    for call in own:
        call.cancel()
    if not _on_background_loop():
        wait_for(own, GRACE)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; an interrupt cancels it. Inside the background loop a ConfigError."""
    if _on_background_loop():
        coroutine.close()
        raise ConfigError(
            "a synchronous call inside a reward or an async generator would wait for itself; "
            "await `aselect` or `aselect_many` there"
        )
    call = _Call(coroutine)
    try:
        return call.result()
    except KeyboardInterrupt:
        _stop([call])
        raise


async def on_background_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Awaits in any loop what has to run in the background loop; cancelling cancels it."""
    if _on_background_loop():
        return await coroutine
    call = _Call(coroutine)
    try:
        return await asyncio.wrap_future(call)
    except asyncio.CancelledError:
        await asyncio.to_thread(_stop, [call])
        raise


def off_background_loop(function: Callable[[], object]) -> None:
    """Runs what takes long: here, or in a thread of its own where "here" is the background loop."""
    if _on_background_loop():
        threading.Thread(target=function, name="bestofn-close").start()
    else:
        function()


_place: ContextVar[int] = ContextVar("place", default=0)


def place_in_run() -> int:
    """Which item of a run the current work is for, from 0; engines serve low ones first."""
    return _place.get()


class Window:
    """How many items are in flight: `fixed`, or as many as fill the batch of a fast engine.

    Each item that took longer than `PATIENCE` shrinks it by one, so that a killed run loses less
    work; any other lets it grow. An item makes so many requests `at_once`. With `begin` it grows
    from so many requests, so that the first results are there before the engine is full.
    """

    LEAST, MOST = 256, 512  # requests; the least is one batch of vLLM
    PATIENCE = 20.0  # seconds

    def __init__(self, at_once: int, fixed: int | None = None, begin: int = MOST) -> None:
        self.least = fixed or max(1, self.LEAST // at_once)
        self.most = fixed or max(1, self.MOST // at_once)
        self.size = fixed or max(1, begin // at_once)

    async def timed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of an item's work, whose time is taken into account."""
        started = time.monotonic()
        result = await work
        if time.monotonic() - started < self.PATIENCE:
            self.size = min(self.size + 1, self.most)
        elif self.size > self.least:
            self.size -= 1
        return result


class _Flight(Generic[A, T]):
    """The items of a run that are under way; a failure to read one is raised after the others."""

    def __init__(
        self,
        work: Callable[[A], Coroutine[Any, Any, T]],
        items: Iterable[A],
        window: int | Window,
        ordered: bool = True,
    ) -> None:
        self._work, self._ordered = work, ordered
        self._items: Iterator[tuple[int, A]] | None = enumerate(items)
        self._window = window if isinstance(window, Window) else Window(1, window)
        self._failure: Exception | None = None
        self._pid = os.getpid()
        self._done = SimpleQueue[Any]()  # where results come as they are ready
        self.running: list[_Call[T]] = []

    def fill(self) -> bool:
        """Starts items until the window is full or a result is there; False when all are done."""
        require_process(self._pid, "an iteration that has begun")
        while self._items is not None and len(self.running) < self._window.size:
            if self._has_result():
                break  # the caller need not wait for a slow source
            try:
                place, item = next(self._items)
            except StopIteration:
                self._items = None
            except Exception as error:
                self._items, self._failure = None, error
            else:
                token = _place.set(place)
                call = _Call(self._window.timed(self._work(item)))
                _place.reset(token)
                self.running.append(call)
                if not self._ordered:
                    call.add_done_callback(self._done.put)
        if not self.running and self._failure is not None:
            raise self._failure
        return bool(self.running)

    def _has_result(self) -> bool:
        if not self._ordered:
            return not self._done.empty()
        return bool(self.running) and self.running[0].done()

    def take(self) -> T:
        """Waits for the next result."""
        call: _Call[T] = self.running[0] if self._ordered else self._done.get()
        result = call.result()
        self.running.remove(call)
        return result


def map_in_window(
    work: Callable[[A], Coroutine[Any, Any, T]],
    items: Iterable[A],
    window: int | Window,
    *,
    ordered: bool = True,
) -> Iterator[T]:
    """The results of `work` on each item, in their order or as they are ready.

    At most a window of items is under way. They are read in the caller's thread, as they are
    needed. However the iteration ends, no work is left running.
    """
    flight = _Flight(work, items, window, ordered)
    try:
        while flight.fill():
            yield flight.take()
    finally:
        _stop(flight.running)


async def amap_in_window(
    work: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], window: int | Window
) -> AsyncGenerator[T]:
    """The same for an async iteration in any loop."""
    flight = _Flight(work, items, window)
    try:
        while flight.fill():
            await asyncio.wrap_future(flight.running[0])
            yield flight.take()
    finally:
        await asyncio.to_thread(_stop, flight.running)


async def gather(*work: Awaitable[T]) -> list[T]:
    """The results of all; if one fails the others are cancelled, and gone before it is raised."""
    if len(work) == 1:
        return [await work[0]]  # a task of its own would cost more than much of the work
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)


async def cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels what still runs and waits until it is gone."""
    running = []
    for task in tasks:
        if not task.done():
            task.cancel()
            running.append(task)
        elif not task.cancelled():
            task.exception()  # one that nobody looks at is reported by asyncio
    if running:
        await asyncio.gather(*running, return_exceptions=True)
