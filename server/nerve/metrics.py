"""Every Prometheus collector, on a registry that is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class EngineMetrics:
    """What the engine counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ["model"]
        self._rows = Histogram(
            "nerve_batch_rows", "Rows in one run", label, buckets=_ROWS, registry=registry
        )
        self._seconds = Histogram(
            "nerve_run_seconds", "Duration of one run", label, buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter(
            "nerve_tokens", "Tokens run, padding not counted", label, registry=registry
        )
        self._padded = Counter(
            "nerve_padded_tokens", "Tokens run, padding counted", label, registry=registry
        )

    def observe_batch(
        self, model: str, rows: int, tokens: int, padded_tokens: int, seconds: float
    ) -> None:
        """Count one run."""
        self._rows.labels(model).observe(rows)
        self._seconds.labels(model).observe(seconds)
        self._tokens.labels(model).inc(tokens)
        self._padded.labels(model).inc(padded_tokens)


class RequestMetrics:
    """What the front ends and the service count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "nerve_requests", "Requests answered", ["dialect", "status"], registry=registry
        )
        self._seconds = Histogram(
            "nerve_request_seconds",
            "Time from a request's first byte to its answer",
            ["dialect"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._texts = Counter("nerve_texts", "Texts tagged", ["model"], registry=registry)
        self._truncated = Counter(
            "nerve_truncated_texts",
            "Texts that were longer than the model and were cut",
            ["model"],
            registry=registry,
        )
        self.versions = Gauge(
            "nerve_model_version_ready",
            "1 for each model version that answers",
            ["model", "version"],
            registry=registry,
        )

    def observe_request(self, dialect: str, status: str, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(dialect, status).inc()
        self._seconds.labels(dialect).observe(seconds)

    def observe_texts(self, model: str, texts: int, truncated: int) -> None:
        """Count texts of one call."""
        self._texts.labels(model).inc(texts)
        self._truncated.labels(model).inc(truncated)
