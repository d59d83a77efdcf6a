"""How far a run over a dataset is, by its summary."""

from bestofn.dataset.summary import Summary, counted
from bestofn.progress import Bar


def bar_of(summary: Summary, total: int | None, shown: bool = True) -> Bar:
    """Shows a summary as it grows.

    Args:
        summary: What was there before this run began; it is read again at each update.
        total: Rows that the output will have, None where that is not known.
        shown: Whether to show anything.
    """
    before = summary.candidates

    def state(seconds: float) -> str:
        rate = (summary.candidates - before) / max(seconds, 1e-9)
        failed = summary.failed / max(summary.candidates, 1)
        hits = summary.usage.cached_tokens / max(summary.usage.prompt_tokens, 1)
        errors = f", {counted(summary.failures, 'error')}" if summary.failures else ""
        return f"{rate:.0f} candidates/s, {failed:.1%} failed, {hits:.0%} cached{errors}"

    return Bar(total, "row", state, initial=summary.rows, shown=shown)
