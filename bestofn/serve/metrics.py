"""What is counted, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bestofn.types import Selection, Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
COUNTED = {
    "requests": ("Requests.", "path", "status"),
    "candidates": ("Candidates that were drawn.", "outcome"),
    "tokens": ("Tokens of all candidates and scores.", "kind"),
    "selections": ("Selections: clear, a tie, or a fallback without a score.", "outcome"),
    "failed_scores": ("Scores that failed.",),
}
PATHS = ("/v1/chat/completions", "/v1/score", "/v1/models", "/health", "/ready", "/metrics")


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self._of = {
            name: Counter(f"bestofn_{name}", said, labels, registry=own)
            for name, (said, *labels) in COUNTED.items()
        }
        name, said = "bestofn_request_seconds", "From a request to the end of its answer."
        self._seconds = Histogram(name, said, ["path"], buckets=SECONDS, registry=own)

    def watch(self, name: str, said: str, value: Callable[[], float]) -> None:
        """Shows a number that changes by itself."""
        Gauge(f"bestofn_{name}", said, registry=self._registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        path = path if path in PATHS else "other"
        self._of["requests"].labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def selection(self, selection: Selection) -> None:
        for candidate in selection.candidates:
            drawn = "drawn" if candidate.whole else candidate.finish_reason
            self._of["candidates"].labels(drawn).inc()
        outcome = "fallback" if selection.fallback else "tie" if selection.tie else "clear"
        self._of["selections"].labels(outcome).inc()
        self._of["failed_scores"].inc(selection.failed_scores)
        self.usage(selection.usage)

    def usage(self, usage: Usage) -> None:
        for kind in ("prompt", "cached", "generated", "scored"):
            self._of["tokens"].labels(kind).inc(getattr(usage, f"{kind}_tokens"))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
