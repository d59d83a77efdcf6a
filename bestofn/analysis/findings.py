"""Findings: what the numbers say, as rows from which terminal, pages and JSON are made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from math import isfinite, isnan
from typing import Any, Literal

import numpy as np

from bestofn.estimators import Interval

FEW = 10
"""With fewer prompts an interval says nothing: that of one prompt has no width at all."""

Kind = Literal["value", "difference", "rate", "gain"]
FORMS: dict[Kind, tuple[str, float, str]] = {
    "value": (".3f", 1, ""),
    "difference": ("+.3f", 1, ""),
    "rate": (".0f", 100, " %"),
    "gain": ("+.1f", 1, " %"),
}


def shown(interval: Interval, kind: Kind = "value") -> str:
    """A mean and its interval, as in "0.51 [0.47, 0.56]", "+0.19 [+0.16, +0.22]" (a difference),
    "66 % [60, 73]" (the rate of a share) or "+99.4 % [+80.1, +120.3]" (a gain in percent).
    """
    form, scale, unit = FORMS[kind]
    ends = [scale * float(x) for x in (interval.mean, interval.low, interval.high)]
    if isnan(ends[0]):
        return "unknown"
    if kind == "value" and abs(ends[0]) >= 10:
        form = ".1f"
    # Adding 0 after rounding makes a zero of minus zero.
    mean, low, high = (f"{round(end, int(form[-2])) + 0.0:{form}}" for end in ends)
    return f"{mean}{unit} [{low}, {high}]"


signed = partial(shown, kind="difference")
rate = partial(shown, kind="rate")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the numbers say, or a sentence about where they are from."""

    claim: str  # what was measured, such as "flip minus random at N=16"
    value: Interval | None = None  # the estimate; None where there is no number
    verdict: str = ""  # what follows from the interval, such as "better"
    kind: Kind = "value"  # how the value is written, see `shown`

    @property
    def shown(self) -> str:
        """The value with its interval; empty where there is none."""
        return "" if self.value is None else shown(self.value, self.kind)

    def __str__(self) -> str:
        rest = ", ".join(filter(None, [self.shown, self.verdict]))
        return f"{self.claim}: {rest}." if rest else f"{self.claim}."


def as_json(value: Any) -> Any:
    """Dataclasses as mappings, arrays as lists, NaN and infinity as None."""
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def as_result(findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings as JSON has them: `findings`, a row for each, and `summary`, their sentences."""
    found = list(findings)
    rows = [
        {"claim": f.claim, "value": as_json(f.value), "shown": f.shown, "verdict": f.verdict}
        for f in found
    ]
    return {"findings": rows, "summary": [str(finding) for finding in found]}


def too_few(what: str) -> Finding:
    """What is said instead of conclusions."""
    return Finding(
        f"{FEW} {what} are the least from which anything is concluded here; means are shown as "
        f"they are, and intervals of so few {what.split()[0]} mean nothing"
    )


def coverage(level: float, resampled: str, resamples: int, not_covered: str) -> Finding:
    """What the intervals cover and what they do not."""
    return Finding(
        f"Intervals ({level:.0%}) resample {resampled}, {resamples:,} times: they cover how these "
        f"scatter, and not another {not_covered}"
    )


def verdict(
    difference: Interval, above: str, below: str, neither: str = "no measurable difference"
) -> str:
    """The first where the whole interval is above zero, the second where it is below."""
    if float(difference.low) > 0:
        return above
    return below if float(difference.high) < 0 else neither


def at(interval: Interval, place: int = -1) -> Interval:
    """One column of an interval `[columns]`."""
    return Interval(*(np.asarray(x)[place] for x in (interval.mean, interval.low, interval.high)))
