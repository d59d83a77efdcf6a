"""What a run over a dataset has done so far."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from math import isnan
from typing import Any

from bestofn.progress import Bar, Counts, redraws
from bestofn.types import Pool, Usage

REASONS = 1000  # different ones that are counted apart
# Numbers that say what failed, which stay: in URLs and names, a status, a port.
TELLING = (
    r"\w+://\S+|(?i:\b(?:status|code|error|errno|http|port)\W{0,2}\d+\b)"
    r"|\(\d{3}\b(?=[:)])|['\"], \d+(?=\))"
)
# Numbers that differ between rows that fail alike.
NUMBER = re.compile(rf"{TELLING}|(?P<n>(?<![\w.:/#-])\d+(?:\.\d+)?(?=m?s\b|(?![\w/-]|[.:]\w)))")


@dataclass(slots=True)
class Summary:
    """Counts over the rows of an output file.

    Attributes:
        rows: Finished ones, errors included.
        errors: Rows without a response (of a pool: rows that lack one) by their reason, in which
            counts are written as N and the row's id as ID; URLs, names of models and status codes
            are as they were.
        examples: For each reason the first error, as it was.
        candidates: Drawn.
        failed: Candidates without a valid score.
        chosen: Rows in which a response was selected.
        ties: Rows in which several candidates share the best score.
        fallbacks: Rows in which every score failed, so that the first candidate was taken.
        usage: What drawing and scoring cost.
        seconds: Wall-clock time of the runs that wrote the rows.
        earlier: Rows that were there when this run began.
        repeated: Rows of the input whose prompt came before; each prompt is answered once.
        bad_rows: Rows of the input that could not be used.
        most: Candidates that the rows would have with none saved.
        n: Candidates of a row with none saved, 0 where that is not known.
        met: Rows of the input that this run came to.
    """

    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict, compare=False)
    candidates: int = 0
    failed: int = 0
    chosen: int = 0
    ties: int = 0
    fallbacks: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    earlier: int = 0
    repeated: int = 0
    bad_rows: int = 0
    most: int = 0
    n: int = 0
    met: int = field(default=0, compare=False)

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts a row of a pool or of a selection."""
        candidates = row["candidates"]
        self.rows += 1
        self.candidates += len(candidates)
        self.most += max(self.n, len(candidates))
        self.seconds += sum(row.get("seconds", {}).values())
        if "reward" not in row:
            self._add_drawn(row)
            return
        self.usage += _usage(row)
        reward = row["reward"]
        self.failed += sum(_value(candidate, reward) is None for candidate in candidates)
        if row["error"] is not None:
            self._add_error(row["error"], row["id"])
        else:
            self.chosen += 1
            self.ties += row["tie"]
            self.fallbacks += row["fallback"]

    def _add_drawn(self, row: Mapping[str, Any]) -> None:
        errors = [candidate["error"] for candidate in row["candidates"] if candidate.get("error")]
        self.usage += sum(map(_usage, row["candidates"]), Usage())
        self.failed += len(errors)
        if errors:
            self._add_error(errors[0], row["id"])

    def add_scores(self, pool: Pool, names: Iterable[str]) -> None:
        """Counts a row of a pool that has been given these scores."""
        self.rows += 1
        self.candidates += len(pool.candidates)
        for candidate in pool.candidates:
            scores = [candidate.scores[name] for name in names if name in candidate.scores]
            self.usage += sum((score.usage for score in scores), Usage())
            reasons = [score.reason or "unknown" for score in scores if isnan(score.value)]
            if reasons:
                self.failed += 1
                self._add_error(reasons[0], pool.prompt.id)

    def _add_error(self, error: str, id: str) -> None:
        reason = self._reason(error, id)
        self.errors[reason] = self.errors.get(reason, 0) + 1
        self.examples.setdefault(reason, error)

    def _reason(self, error: str, id: str) -> str:
        """The same for all rows that fail alike; of very many different ones not all are kept."""
        own = rf"(?<![\w.:/#-]){re.escape(id)}(?![\w/-]|[.:]\w)"
        named = re.sub(own, "ID", error)
        reason = NUMBER.sub(lambda found: "N" if found["n"] else found[0], named)
        return reason if reason in self.errors or len(self.errors) < REASONS else "other reasons"

    def often(self) -> list[str]:
        """The reasons of errors, the most frequent ones first."""
        return sorted(self.errors, key=lambda reason: -self.errors[reason])

    def commonest(self) -> str:
        """The first error of the most frequent reason."""
        return self.examples[self.often()[0]]

    @property
    def failures(self) -> int:
        return sum(self.errors.values())

    def failure(self) -> str:
        """What to say of a run in which too many rows failed."""
        return (
            f"{self.failures} of {counted(self.rows, 'row')} are without a response, most often "
            f"because: {self.commonest()}; the rows are kept, and the same command with "
            "--retry-errors answers them again"
        )

    def line(self, what: str) -> str:
        """One line for the end of drawing or scoring."""
        share = self.failed / max(self.candidates, 1)
        often = "".join(f", most often: {reason}" for reason in self.often()[:1])
        return f"{what}: {counted(self.candidates, 'candidate')}, {share:.1%} failed{often}"

    def lines(self) -> list[str]:
        """What to tell a user of a selection, a sentence a line."""
        return [*self._about_rows(), *self._about_candidates()]

    def _about_rows(self) -> Iterable[str]:
        earlier = f", {self.earlier} of them by earlier runs" if self.earlier else ""
        yield f"{counted(self.rows, 'row')} finished{earlier}"
        if self.failures:
            share = self.failures / max(self.rows, 1)
            yield f"{counted(self.failures, 'row')} without a response ({share:.1%}):"
            yield from (f"  {self.errors[reason]} x {reason}" for reason in self.often()[:10])
        if self.repeated:
            yield f"{counted(self.repeated, 'row')} of the input repeat a prompt, answered once"
        if self.bad_rows:
            yield f"{counted(self.bad_rows, 'row')} of the input could not be used"

    def _about_candidates(self) -> Iterable[str]:
        if not self.candidates:
            return
        saved = self.most - self.candidates
        yield (
            f"{counted(self.candidates, 'candidate')}, {self.failed / self.candidates:.1%} failed"
            + (f"; {saved} of {self.most} saved ({saved / self.most:.0%})" if saved else "")
        )
        ties = self.ties / max(self.chosen, 1)
        yield f"ties in {ties:.0%} of the rows, no valid score in {self.fallbacks}"
        usage = self.usage
        hits = usage.cached_tokens / max(usage.prompt_tokens, 1)
        yield (
            f"{usage.prompt_tokens} prompt tokens ({hits:.0%} cached), {usage.generated_tokens} "
            f"generated, {usage.scored_tokens} scored"
        )
        if self.seconds:
            rate = self.candidates / self.seconds
            yield f"{self.seconds:.1f} s, {rate:.1f} candidates/s"


_USAGE = [part.name for part in fields(Usage)]


def _value(candidate: Mapping[str, Any], reward: str) -> float | None:
    """A score's value, None where it failed or the row has none."""
    score = (candidate.get("scores") or {}).get(reward) or {}
    value: float | None = score.get("value")
    return value


def counted(count: int, thing: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _usage(row: Mapping[str, Any]) -> Usage:
    """What a row, or a candidate, has cost."""
    known = row.get("usage") or {}
    return Usage(**{name: known.get(name, 0) for name in _USAGE})


@contextmanager
def bar_of(
    summary: Summary, total: int | None, what: str = "", *, shown: bool = True
) -> Iterator[Bar]:
    """Shows a summary as it grows.

    Args:
        summary: What was there before this run began; it is read again at each update.
        total: Rows that there will be, None where that is not known.
        what: What is being done; a line says how it ended, unless a bar has shown it all.
        shown: Whether to show anything.
    """
    before = summary.candidates

    def state(seconds: float) -> str:
        counts = Counts(summary.candidates, summary.failed, summary.usage, before)
        errors = f", {counted(summary.failures, 'error')}" if summary.failures else ""
        return counts(seconds) + errors

    with Bar(total, "row", state, initial=summary.rows, what=what, shown=shown) as bar:
        yield bar
    if shown and what and summary.candidates and (summary.failed or not redraws()):
        print(summary.line(what), file=sys.stderr)
