"""How far a run is: a bar where one can be redrawn, else a line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Self

from tqdm import tqdm

from bestofn.types import Selection, Usage

EVERY = 30.0  # seconds between two lines


def redraws() -> bool:
    """Whether a bar on standard error can be drawn over: on a terminal or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@dataclass(slots=True)
class Counts:
    """What a display says of the candidates so far; `earlier` ones were there before the run."""

    candidates: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    earlier: int = 0

    def add(self, candidates: int, failed: int, usage: Usage) -> None:
        self.candidates += candidates
        self.failed += failed
        self.usage += usage

    def __call__(self, seconds: float) -> str:
        rate = (self.candidates - self.earlier) / max(seconds, 1e-9)
        failed = self.failed / max(self.candidates, 1)
        cached = self.usage.cached_tokens / max(self.usage.prompt_tokens, 1)
        return f"{rate:.0f} candidates/s, {failed:.1%} failed, {cached:.0%} cached"


class Bar:
    """Counts units on standard error, and what `state` says given the seconds since the start.

    `what` comes before the count, which begins at `initial`. With `last_line` the end is shown,
    too, where there are lines.
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
        self._started = self._shown = time.monotonic()
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

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._lines and self._last_line:
            self._print(time.monotonic())

    def update(self) -> None:
        """Shows one more."""
        self._done += 1
        now = time.monotonic()
        if not self._bar.disable:
            # Without refresh: it is drawn ten times a second at most.
            self._bar.set_postfix_str(self._state(now - self._started), refresh=False)
            self._bar.update()
        elif self._lines and now - self._shown > EVERY:
            self._print(now)

    def _print(self, now: float) -> None:
        self._shown, seconds = now, now - self._started
        what = f"{self._what}: " if self._what else ""
        of, left = "", ""
        if self._total is not None:
            pace = seconds / max(self._done - self._initial, 1)
            of = f" of {self._total}"
            left = f", {tqdm.format_interval(max(self._total - self._done, 0) * pace)} left"
        line = f"{what}{self._done}{of} {self._unit}s, {self._state(seconds)}{left}"
        print(line, file=sys.stderr, flush=True)


def with_progress(selections: Iterator[Selection], total: int | None) -> Iterator[Selection]:
    """The selections, and a bar that counts their prompts."""
    counts = Counts()
    with Bar(total, "prompt", counts, last_line=True) as bar:
        for selection in selections:
            failed = sum(isnan(score.value) for score in selection.scores)
            counts.add(len(selection.candidates), failed, selection.usage)
            bar.update()
            yield selection
