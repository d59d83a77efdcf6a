"""What a run over a dataset has done so far."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan

from bestofn.progress import Bar, Counts, redraws
from bestofn.types import Pool, Selection, Usage

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
            counts are written as N and the row's id as ID.
        examples: For each reason the first error, as it was.
        candidates: Drawn; `failed` are those without a valid score, `rejected` those that were
            ended early for it.
        chosen: Rows in which a response was selected.
        ties: Rows in which several candidates share the best score.
        fallbacks: Rows in which every score failed, so that the first candidate was taken.
        usage: What drawing and scoring cost.
        seconds: Wall-clock time of the runs that wrote the rows.
        earlier: Rows that were there when this run began.
        repeated: Rows of the input whose prompt came before; `bad_rows` could not be used.
        most: Candidates that the rows would have with none saved, `n` of them in a row.
        met: Rows of the input that this run saw.
    """

    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict, compare=False)
    candidates: int = 0
    failed: int = 0
    rejected: int = 0
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

    def add(self, row: Pool) -> None:
        """Counts a pool that was drawn, or a selection."""
        self.most += max(self.n, len(row.candidates))
        self.seconds += sum(row.seconds.values())
        errors = [candidate.error for candidate in row.candidates if candidate.error]
        costs, failed = [candidate.usage for candidate in row.candidates], len(errors)
        if isinstance(row, Selection):
            costs, failed = [row.usage], row.failed_scores
            self.rejected += sum(c.finish_reason == "rejected" for c in row.candidates)
            errors, answered = [row.error] if row.error else [], not row.error
            self.chosen += answered
            self.ties += row.tie and answered
            self.fallbacks += row.fallback and answered
        self._add(row, costs, failed, errors[:1])

    def add_scores(self, row: Pool, names: Iterable[str]) -> None:
        """Counts a pool that has been given these scores."""
        given = [[c.scores[name] for name in names if name in c.scores] for c in row.candidates]
        failed = [[s.reason or "unknown" for s in scores if isnan(s.value)] for scores in given]
        errors = [reasons[0] for reasons in failed if reasons]
        self._add(row, [score.usage for scores in given for score in scores], len(errors), errors)

    def _add(self, row: Pool, costs: list[Usage], failed: int, errors: list[str]) -> None:
        self.rows += 1
        self.candidates += len(row.candidates)
        self.usage = sum(costs, self.usage)
        self.failed += failed
        for error in errors:
            self._add_error(error, row.prompt.id)

    def _add_error(self, error: str, id: str) -> None:
        """Rows that fail alike have one reason; of very many different ones not all are kept."""
        own = rf"(?<![\w.:/#-]){re.escape(id)}(?![\w/-]|[.:]\w)"
        named = re.sub(own, "ID", error)
        reason = NUMBER.sub(lambda found: "N" if found["n"] else found[0], named)
        if reason not in self.errors and len(self.errors) >= REASONS:
            reason = "other reasons"
        self.errors[reason] = self.errors.get(reason, 0) + 1
        self.examples.setdefault(reason, error)

    def often(self) -> list[str]:
        """The reasons of errors, the most frequent ones first."""
        return sorted(self.errors, key=lambda reason: -self.errors[reason])

    def commonest(self) -> str:
        """The first error of the most frequent reason."""
        return self.examples[self.often()[0]]

    @property
    def failures(self) -> int:
        return sum(self.errors.values())

    def lines(self) -> Iterator[str]:
        """What to tell a user of a selection, a sentence a line."""
        earlier = f", {self.earlier} of them by earlier runs" if self.earlier else ""
        yield f"{counted(self.rows, 'row')} finished{earlier}"
        if self.failures:
            share = self.failures / self.rows
            yield f"{counted(self.failures, 'row')} without a response ({share:.1%}):"
            yield from (f"  {self.errors[reason]} x {reason}" for reason in self.often()[:10])
        if self.repeated:
            yield f"{counted(self.repeated, 'row')} of the input repeat a prompt, answered once"
        if self.bad_rows:
            yield f"{counted(self.bad_rows, 'row')} of the input could not be used"
        if not self.candidates:
            return
        saved, usage = self.most - self.candidates, self.usage
        saving = f"; {saved} of {self.most} saved ({saved / self.most:.0%})" if saved else ""
        yield f"{self.drawn()}{saving}"
        ties = self.ties / max(self.chosen, 1)
        yield f"ties in {ties:.0%} of the rows, no valid score in {self.fallbacks}"
        hits = usage.cached_tokens / max(usage.prompt_tokens, 1)
        yield (
            f"{usage.prompt_tokens} prompt tokens ({hits:.0%} cached), {usage.generated_tokens} "
            f"generated, {usage.scored_tokens} scored"
        )
        if self.seconds:
            yield f"{self.seconds:.1f} s, {self.candidates / self.seconds:.1f} candidates/s"

    def drawn(self) -> str:
        early = f", {self.rejected / self.candidates:.1%} rejected early" if self.rejected else ""
        share = self.failed / self.candidates
        return f"{counted(self.candidates, 'candidate')}, {share:.1%} failed{early}"


def counted(count: int, thing: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


@contextmanager
def bar_of(
    summary: Summary, total: int | None, what: str = "", *, shown: bool = True
) -> Iterator[Bar]:
    """Shows a summary as it grows to `total` rows, and in a line how `what` ended."""
    before = summary.candidates

    def state(seconds: float) -> str:
        counts = Counts(summary.candidates, summary.failed, summary.usage, before)
        errors = f", {counted(summary.failures, 'error')}" if summary.failures else ""
        return counts(seconds) + errors

    with Bar(total, "row", state, initial=summary.rows, what=what, shown=shown) as bar:
        yield bar
    if shown and what and summary.candidates and (summary.failed or not redraws()):
        often = "".join(f", most often: {reason}" for reason in summary.often()[:1])
        print(f"{what}: {summary.drawn()}{often}", file=sys.stderr)
