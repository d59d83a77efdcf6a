"""How far a run over a dataset is, by its summary."""

from bestofn.dataset.summary import Summary, counted
from bestofn.progress import Bar, Counts


def bar_of(summary: Summary, total: int | None, shown: bool = True) -> Bar:
    """Shows a summary as it grows; `total` is how many rows the output will have, if known."""
    before = summary.candidates

    def state(seconds: float) -> str:
        counts = Counts(summary.candidates, summary.failed, summary.usage, before)
        errors = f", {counted(summary.failures, 'error')}" if summary.failures else ""
        return counts(seconds) + errors

    return Bar(total, "row", state, initial=summary.rows, shown=shown)
