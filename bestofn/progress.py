"""How far a run is: a bar where one can be redrawn, else a line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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


class _Lines:
    """Standard error as a file in which each state of a bar is a line."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


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
        self._state, self._last_line = state, last_line
        self._started = time.monotonic()
        of, left = ("", "") if total is None else (" of {total_fmt}", ", {remaining} left")
        line = "{desc}{n_fmt}" + of + " {unit}s{postfix}" + left
        lines = {"file": _Lines(), "mininterval": EVERY, "bar_format": line, "leave": False}
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=initial,
            desc=f"{what}: " if what else None,
            unit=unit,
            disable=not shown,
            miniters=1,
            delay=1e-9,  # not before the first update
            **({"dynamic_ncols": True} if redraws() else lines),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last_line and not redraws() and self._bar.last_print_n < self._bar.n:
            self._bar.refresh()
        self._bar.close()

    def update(self) -> None:
        """Shows one more."""
        state = self._state(time.monotonic() - self._started)
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update()


def with_progress(selections: Iterator[Selection], total: int | None) -> Iterator[Selection]:
    """The selections, and a bar that counts their prompts."""
    counts = Counts()
    with Bar(total, "prompt", counts, last_line=True) as bar:
        for selection in selections:
            failed, drawn = selection.failed_scores, len(selection.candidates)
            counts.add(drawn, failed, selection.usage)
            bar.update()
            yield selection
