"""How far a run is: a bar on a terminal, else a line every half minute."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from bestofn.batch.summary import Summary, counted

EVERY = 30.0  # seconds


class Bar:
    """Shows a summary as it grows.

    Args:
        summary: What was there before this run began; it is read again at each update.
        total: Rows that the output will have, None where that is not known.
        shown: Whether to show anything.
    """

    def __init__(self, summary: Summary, total: int | None, shown: bool = True) -> None:
        terminal = sys.stderr.isatty()
        self._summary = summary
        self._total = total
        self._lines = shown and not terminal
        self._before = summary.candidates
        self._started = self._told = time.monotonic()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=summary.rows,
            unit="row",
            dynamic_ncols=True,
            disable=not (shown and terminal),
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

    def update(self) -> None:
        """Shows a row more."""
        if not self._bar.disable:
            self._bar.set_postfix_str(self._state(time.monotonic()), refresh=False)
            self._bar.update()
        elif self._lines and (now := time.monotonic()) - self._told > EVERY:
            self._told = now
            of = "" if self._total is None else f" of {self._total}"
            line = f"{self._summary.rows}{of} rows, {self._state(now)}{self._left(now)}"
            print(line, file=sys.stderr, flush=True)

    def _left(self, now: float) -> str:
        rows = self._summary.rows
        if self._total is None:
            return ""
        pace = (now - self._started) / max(rows - self._summary.earlier, 1)
        return f", {tqdm.format_interval(max(self._total - rows, 0) * pace)} left"

    def _state(self, now: float) -> str:
        summary = self._summary
        rate = (summary.candidates - self._before) / max(now - self._started, 1e-9)
        failed = summary.failed / max(summary.candidates, 1)
        hits = summary.usage.cached_tokens / max(summary.usage.prompt_tokens, 1)
        errors = f", {counted(summary.failures, 'error')}" if summary.failures else ""
        return f"{rate:.0f} candidates/s, {failed:.1%} failed, {hits:.0%} cached{errors}"
