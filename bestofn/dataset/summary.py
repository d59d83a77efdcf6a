"""What a run over a dataset has done so far."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bestofn.types import Usage

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
        errors: Rows without a response, by their reason, in which counts are written as N and the
            row's id as ID; URLs, names of models and status codes are as they were.
        candidates: Drawn.
        failed: Candidates without a valid score.
        ties: Rows in which several candidates share the best score.
        fallbacks: Rows in which every score failed, so that the first candidate stands in.
        usage: What drawing and scoring cost.
        seconds: Wall-clock time of the runs that wrote the rows.
        earlier: Rows that were there when this run began.
        repeated: Rows of the input whose prompt came before; each prompt is answered once.
        bad_rows: Rows of the input that could not be used.
        most: Candidates that the rows would have with none saved.
    """

    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    candidates: int = 0
    failed: int = 0
    ties: int = 0
    fallbacks: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    earlier: int = 0
    repeated: int = 0
    bad_rows: int = 0
    most: int = 0

    def add(self, row: Mapping[str, Any], n: int = 0) -> None:
        """Counts a row, which may have up to `n` candidates."""
        candidates = row["candidates"]
        self.rows += 1
        self.candidates += len(candidates)
        self.most += max(n, len(candidates))
        self.usage += Usage(**{name: row["usage"].get(name, 0) for name in _USAGE})
        self.seconds += sum(row.get("seconds", {}).values())
        reward = row["reward"]
        self.failed += sum(_value(candidate, reward) is None for candidate in candidates)
        if row["error"] is not None:
            reason = self._reason(row)
            self.errors[reason] = self.errors.get(reason, 0) + 1
        else:
            self.ties += row["tie"]
            self.fallbacks += row["fallback"]

    def _reason(self, row: Mapping[str, Any]) -> str:
        """The same for all rows that fail alike; of very many different ones not all are kept."""
        own = rf"(?<![\w.:/#-]){re.escape(row['id'])}(?![\w/-]|[.:]\w)"
        named = re.sub(own, "ID", row["error"])
        reason = NUMBER.sub(lambda found: "N" if found["n"] else found[0], named)
        return reason if reason in self.errors or len(self.errors) < REASONS else "other reasons"

    def often(self) -> list[str]:
        """The reasons of errors, the most frequent ones first."""
        return sorted(self.errors, key=lambda reason: -self.errors[reason])

    @property
    def failures(self) -> int:
        return sum(self.errors.values())

    def lines(self) -> list[str]:
        """What a user is told, a sentence a line."""
        return [*self._about_rows(), *self._about_candidates()]

    def _about_rows(self) -> Iterable[str]:
        earlier = f", {self.earlier} of them by earlier runs" if self.earlier else ""
        yield f"{counted(self.rows, 'row')} finished{earlier}"
        if self.failures:
            yield f"{counted(self.failures, 'row')} without a response ({self._share():.1%}):"
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
        chosen = max(self.rows - self.failures, 1)
        yield f"ties in {self.ties / chosen:.0%} of the rows, no valid score in {self.fallbacks}"
        usage = self.usage
        hits = usage.cached_tokens / max(usage.prompt_tokens, 1)
        yield (
            f"{usage.prompt_tokens} prompt tokens ({hits:.0%} cached), {usage.generated_tokens} "
            f"generated, {usage.scored_tokens} scored"
        )
        if self.seconds:
            rate = self.candidates / self.seconds
            yield f"{self.seconds:.1f} s, {rate:.1f} candidates/s"

    def _share(self) -> float:
        return self.failures / max(self.rows, 1)


_USAGE = [part.name for part in fields(Usage)]


def _value(candidate: Mapping[str, Any], reward: str) -> float | None:
    """A score's value, None where it failed or the row has none."""
    score = (candidate.get("scores") or {}).get(reward) or {}
    value: float | None = score.get("value")
    return value


def counted(count: int, thing: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count} {thing}" + ("" if count == 1 else "s")
