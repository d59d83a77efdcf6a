"""The one pipeline: prompts in, durable rows out, each prompt once.

`sample`, `select` and the audit hand it their work: an iterator of prompts in, pools out.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from bestofn.dataset.summary import Summary, bar_of, counted
from bestofn.errors import ConfigError, RunFailedError
from bestofn.identity import Compare, by_identity
from bestofn.prompts import comparable, content_key, folded
from bestofn.store.journal import Confirm, beside, open_journal, writing
from bestofn.store.pool import as_line, loads, stream, to_row
from bestofn.types import Pool, Prompt, Selection

Work = Callable[[Iterator[Prompt], Confirm], Iterator[Pool]]
"""Turns prompts into pools, in any order. Once more is known of the settings than before, such as
what a server serves, it confirms them."""
Accept = Callable[[Prompt], bool]
BadRow = Callable[[ConfigError], None] | None
Source = Callable[[Accept, BadRow], Iterator[Prompt]]
"""Opens the prompts of a run: those that are accepted. Rows that cannot be used are given to the
second, or end the run where it is None."""
FIRST_ROWS = 20  # a share of errors says little before
SHOWN = 20  # rows of the source that are skipped


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

    def check(self, summary: Summary, enough: int = 0) -> None:
        """Raises RunFailedError if too many rows failed; those of earlier runs count too."""
        if summary.rows >= enough and summary.failures > self.max_error_rate * summary.rows:
            raise RunFailedError(
                f"{summary.failures} of {counted(summary.rows, 'row')} are without a response, "
                f"most often because: {summary.commonest()}; the rows are kept, and the same "
                "command with --retry-errors answers them again"
            )


def run(
    source: Source,
    output: Path,
    work: Work,
    *,
    settings: Mapping[str, Any],
    compare: Compare = by_identity,
    policy: ErrorPolicy = ErrorPolicy(),
    otherwise: str = "write to another file (--fresh)",
    more: Mapping[str, Any] = {},
    columns: bool = False,
    n: int = 0,
    total: int | None = None,
    progress: bool = True,
    what: str = "",
) -> Summary:
    """Writes a row for each prompt that has none yet; a rerun resumes.

    Work is not begun where all prompts have rows. See `open_journal` for `settings`, `compare` and
    `otherwise`. With `columns` an answered prompt must have the columns that it had then. `more`
    are further fields of each row, `n` the candidates of a row with none saved, `total` the rows
    that there will be, `what` is being done. The summary is that of the file.

    Raises:
        ConfigError: a prompt cannot be used, or the output was begun with other settings or is
            being written.
        BestOfNError: too many rows failed, or the disk is full.
    """
    if output.suffix in (".gz", ".zst"):
        raise ConfigError(f"rows are not written compressed; name another file than {output}")
    keep = _succeeded if policy.retry_errors else None
    with open_journal(output, settings, otherwise, keep, compare) as journal:
        summary = Summary(n=n)
        seen = _SeenPrompts(summary, columns)
        for row in stream(output, scores=False):
            seen.answered(row.prompt)
            summary.add(row)
        summary.earlier = summary.rows
        skipped = _skipping(output, summary)
        prompts = source(seen.is_new, skipped if policy.on_bad_row == "skip" else None)
        first = next(prompts, None)
        if first is not None:
            rows = work(chain([first], prompts), journal.confirm)
            with bar_of(summary, total, what, shown=progress) as bar:
                for row in rows:
                    journal.append(as_line({**to_row(row), **more}))
                    summary.add(row)
                    policy.check(summary, FIRST_ROWS)
                    bar.update()
    policy.check(summary)
    return summary


Spent = tuple[Pool, Mapping[str, float]]


def timed(results: Iterable[Spent]) -> Iterator[Pool]:
    """Shares the time since the last pool out over what this one's was spent on."""
    last = time.perf_counter()
    for pool, spent in results:
        now = time.perf_counter()
        total = sum(spent.values())
        for name, part in spent.items():
            pool.seconds[name] = pool.seconds.get(name, 0.0) + (now - last) * part / total
        yield pool
        last = time.perf_counter()  # what the reader does with it is not our time


class _SeenPrompts:
    """The prompts that are answered or under way, as hashes: memory for a million is 110 MB."""

    def __init__(self, summary: Summary, columns: bool) -> None:
        self._summary = summary
        self._columns: dict[int, int] | None = {} if columns else None
        # The hash of the content by that of the id; negative once it was met in the input.
        self._known: dict[int, int] = {}

    def answered(self, prompt: Prompt) -> None:
        """Notes a prompt that has a row."""
        key = _hash(prompt.id)
        self._known[key] = _content(prompt)
        if self._columns is not None:
            self._columns[key] = _with_columns(prompt)

    def is_new(self, prompt: Prompt) -> bool:
        """Whether a prompt of the input is still to be answered; ConfigError if its id is taken."""
        key, content = _hash(prompt.id), _content(prompt)
        known = self._known.get(key, 0)
        if known and abs(known) != content:
            raise ConfigError(f"the id {prompt.id!r} is that of another prompt already")
        if self._columns and self._columns.get(key) not in (None, _with_columns(prompt)):
            raise ConfigError(
                f"the columns of the prompt {prompt.id!r} are not those that it was answered with; "
                "write to another file"
            )
        self._known[key] = -content
        self._summary.met += 1
        self._summary.repeated += known < 0
        return not known


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(folded(text).encode("utf-8", "replace"), digest_size=8).digest())


def _content(prompt: Prompt) -> int:
    return 1 + (int(content_key(prompt), 16) >> 2)


def _with_columns(prompt: Prompt) -> int:
    return _hash(json.dumps(comparable(prompt), sort_keys=True))


def _succeeded(line: bytes) -> bool:
    """Whether a line of an output is a row in which nothing failed to be drawn."""
    try:
        row = loads(line)
    except ConfigError as error:
        raise ConfigError(f"a line of the output: {error}") from None
    if isinstance(row, Selection):
        return row.error is None
    return not any(candidate.error for candidate in row.candidates)


def skipped_of(output: Path) -> Path:
    """Where the rows of the source are named that could not be used."""
    return beside(output, "skipped.txt")


def _skipping(output: Path, summary: Summary) -> Callable[[ConfigError], None]:
    """What names rows of the source that could not be used: the first on stderr, all in a file."""
    path = skipped_of(output)
    with writing(path):
        path.unlink(missing_ok=True)

    def skip(fault: ConfigError) -> None:
        summary.bad_rows += 1
        with writing(path), path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{fault}\n")
        if summary.bad_rows <= SHOWN:
            print(f"skipped: {fault}", file=sys.stderr)

    return skip
