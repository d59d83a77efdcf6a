"""How far a run is: a bar where one can be redrawn, else a line every half minute."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines


def redraws() -> bool:
    """Whether a bar on standard error can be drawn over: on a terminal or in a notebook.

    In a log file each of its states would be kept.
    """
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Bar:
    """Counts on standard error.

    Args:
        total: How many there will be, None where that is not known.
        unit: What is counted.
        state: What else to say, given the seconds since the start.
        initial: How many there were before.
        what: Printed before the count.
        shown: Whether to show anything.
        last_line: Whether to show the end, too, where there are lines.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        state: Callable[[float], str],
        *,
        initial: int = 0,
        what: str = "",
        shown: bool = True,
        last_line: bool = False,
    ) -> None:
        self._total, self._unit, self._state, self._what = total, unit, state, what
        self._initial = self._done = initial
        self._lines = shown and not redraws()
        self._last_line = last_line
        self._started = self._told = time.monotonic()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=initial,
            desc=what or None,
            unit=unit,
            dynamic_ncols=True,
            disable=not shown or self._lines,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._lines and self._last_line:
            self._tell(time.monotonic())

    def update(self) -> None:
        """Shows one more."""
        self._done += 1
        now = time.monotonic()
        if not self._bar.disable:
            # Without refresh: it is drawn ten times a second at most.
            self._bar.set_postfix_str(self._state(now - self._started), refresh=False)
            self._bar.update()
        elif self._lines and now - self._told > EVERY:
            self._tell(now)

    def _tell(self, now: float) -> None:
        self._told = now
        seconds = now - self._started
        what = f"{self._what}: " if self._what else ""
        of = "" if self._total is None else f" of {self._total}"
        line = f"{what}{self._done}{of} {self._unit}s, {self._state(seconds)}{self._left(seconds)}"
        print(line, file=sys.stderr, flush=True)

    def _left(self, seconds: float) -> str:
        if self._total is None:
            return ""
        pace = seconds / max(self._done - self._initial, 1)
        return f", {tqdm.format_interval(max(self._total - self._done, 0) * pace)} left"
