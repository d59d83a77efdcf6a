"""The one pipeline: prompts in, durable rows out, each prompt once.

`sample`, `select` and the audit hand it their work: an iterator of prompts in, rows out. `score`,
whose rows go to several files, shares its progress and its count of failures.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bestofn.dataset.seen import SeenPrompts, read_output, succeeded
from bestofn.dataset.summary import Summary, bar_of
from bestofn.errors import ConfigError, RunFailedError
from bestofn.identity import Compare, by_identity
from bestofn.store.journal import Confirm, beside, cannot_write, open_journal
from bestofn.store.row import as_line
from bestofn.types import Prompt

Row = dict[str, Any]
Work = Callable[[Iterator[Prompt], Confirm], Iterator[Row]]
"""Turns prompts into rows, in any order. Once more is known of the settings than before, such as
what a server serves, it confirms them."""
FIRST_ROWS = 20  # a share of errors says little before


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What a run does about what goes wrong.

    Attributes:
        on_bad_row: Whether a row of the source that cannot be used ends the run or is skipped.
        max_error_rate: The run fails when more than this share of its rows are without a response;
            looked at from 20 rows on, and at the end.
        retry_errors: Answer the prompts again whose rows have an error.

    Raises:
        ConfigError: the rate is no share.
    """

    on_bad_row: Literal["fail", "skip"] = "fail"
    max_error_rate: float = 0.5
    retry_errors: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_error_rate <= 1:
            raise ConfigError(f"max_error_rate must be in [0, 1], not {self.max_error_rate}")

    def check(self, summary: Summary, *, ended: bool = False) -> None:
        """Ends a run in which too many rows failed; those of earlier runs count too.

        Raises:
            RunFailedError: it is one.
        """
        enough = ended or summary.rows >= FIRST_ROWS
        if enough and summary.failures > self.max_error_rate * summary.rows:
            raise RunFailedError(summary.failure())


Accept = Callable[[Prompt], bool]
BadRow = Callable[[ConfigError], None] | None
Source = Callable[[Accept, BadRow], Iterator[Prompt]]
"""Opens the prompts of a run: those that are accepted. Rows that cannot be used are given to the
second, or end the run where it is None."""


def run(
    source: Source,
    output: Path,
    work: Work,
    *,
    settings: Mapping[str, Any],
    compare: Compare = by_identity,
    policy: ErrorPolicy = ErrorPolicy(),
    otherwise: str = "write to another file (--fresh)",
    columns: bool = False,
    n: int = 0,
    total: int | None = None,
    progress: bool = True,
    what: str = "",
) -> Summary:
    """Writes a row for each prompt that has none yet; a rerun resumes.

    Args:
        source: The prompts.
        output: The JSONL file.
        work: Makes rows of prompts. It is not begun where all prompts have rows.
        settings: What the rows depend on; a rerun with others is refused.
        compare: Says what differs between two of them.
        policy: What to do about what goes wrong.
        otherwise: What to do about an output with other settings.
        columns: Whether rows depend on the columns of their prompts, so that a rerun with others is
            refused.
        n: Candidates of a row with none saved.
        total: Rows that the output will have, None where that is not known.
        progress: Show a bar, or without a terminal a line every half minute.
        what: What is being done, for the bar.

    Returns:
        What is in the file.

    Raises:
        ConfigError: a prompt cannot be used, or the output was begun with other settings or is
            being written.
        BestOfNError: too many rows failed, or the disk is full.
    """
    if output.suffix in (".gz", ".zst"):
        raise ConfigError(f"rows are not written compressed; name another file than {output}")
    keep = succeeded if policy.retry_errors else None
    with open_journal(output, settings, otherwise, keep, compare) as journal:
        (summary, seen), met = _earlier(output, n, columns), itertools.count()
        skipped = Skipped(output, summary)
        bad_row = skipped if policy.on_bad_row == "skip" else None
        prompts = source(partial(_is_new, seen, summary, met), bad_row)
        first = next(prompts, None)
        if first is not None:
            rows = work(itertools.chain([first], prompts), journal.confirm)
            for row in shown(rows, summary, total, what, progress):
                journal.append(as_line(row))
                summary.add(row)
                policy.check(summary)
        summary.met = next(met)
    policy.check(summary, ended=True)
    return summary


def _earlier(output: Path, n: int, columns: bool) -> tuple[Summary, SeenPrompts]:
    """What is in the output already."""
    summary, seen = Summary(n=n), SeenPrompts(columns=columns)
    for row in read_output(output):
        seen.add_row(row)
        summary.add(row)
    summary.earlier = summary.rows
    return summary, seen


def shown(
    rows: Iterable[Row], summary: Summary, total: int | None, what: str, progress: bool
) -> Iterator[Row]:
    """Passes rows on under a bar that shows a summary, which is read again at each of them."""
    with bar_of(summary, total, what, shown=progress) as bar:
        for row in rows:
            yield row
            bar.update()


def timed(rows: Iterator[Row], stage: str) -> Iterator[Row]:
    """Gives each row its share of the run's time: that since the row before it."""
    last = time.perf_counter()
    for row in rows:
        now = time.perf_counter()
        row["seconds"] = {stage: round(now - last, 6)}
        last = now
        yield row


def _is_new(seen: SeenPrompts, summary: Summary, met: Iterator[int], prompt: Prompt) -> bool:
    next(met)
    known = seen.meet(prompt)
    summary.repeated += known == "repeated"
    return known == "new"


def skipped_of(output: Path) -> Path:
    """Where the rows of the source are named that could not be used."""
    return beside(output, "skipped.txt")


class Skipped:
    """Names rows of the source that could not be used: the first on stderr, all in a file."""

    SHOWN = 20

    def __init__(self, output: Path, summary: Summary) -> None:
        self.path = skipped_of(output)
        self.summary = summary
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __call__(self, fault: ConfigError) -> None:
        self.summary.bad_rows += 1
        try:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{fault}\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self.summary.bad_rows <= self.SHOWN:
            print(f"skipped: {fault}", file=sys.stderr)
        elif self.summary.bad_rows == self.SHOWN + 1:
            print(f"further rows that are skipped are named in {self.path}", file=sys.stderr)
