"""What is counted, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bestofn.types import Selection, Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PATHS = frozenset(
    ("/v1/chat/completions", "/v1/score", "/v1/models", "/health", "/ready", "/metrics")
)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, said: str, *labels: str) -> Counter:
            return Counter(f"bestofn_{name}", said, labels, registry=self._registry)

        self._requests = counter("requests", "Requests.", "path", "status")
        self._candidates = counter("candidates", "Candidates that were drawn.", "outcome")
        self._tokens = counter("tokens", "Tokens of all candidates and scores.", "kind")
        self._ties = counter("ties", "Selections in which others were as good.")
        self._fallbacks = counter("fallbacks", "Selections without a single score.")
        self._failed_scores = counter("failed_scores", "Scores that failed.")
        self._seconds = Histogram(
            "bestofn_request_seconds",
            "From a request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self._registry,
        )

    def watch(self, name: str, said: str, value: Callable[[], float]) -> None:
        """Shows a number that changes by itself."""
        gauge = Gauge(f"bestofn_{name}", said, registry=self._registry)
        gauge.set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        path = path if path in PATHS else "other"
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def selection(self, selection: Selection) -> None:
        for candidate in selection.candidates:
            outcome = {"error": "failed", "rejected": "rejected"}.get(candidate.finish_reason)
            self._candidates.labels(outcome or "drawn").inc()
        self._ties.inc(selection.tie)
        self._fallbacks.inc(selection.fallback)
        self._failed_scores.inc(selection.failed_scores)
        self.usage(selection.usage)

    def usage(self, usage: Usage) -> None:
        for kind in ("prompt", "cached", "generated", "scored"):
            self._tokens.labels(kind).inc(getattr(usage, f"{kind}_tokens"))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
