"""Every Prometheus collector, on a registry that is passed in."""

from __future__ import annotations

import collections
import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class EngineMetrics:
    """What engines count, by model and version."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["model", "version"]
        self.rows = Histogram(
            "nerve_batch_rows", "Rows in one run", labels, buckets=_ROWS, registry=registry
        )
        self.seconds = Histogram(
            "nerve_run_seconds", "Duration of one run", labels, buckets=_SECONDS, registry=registry
        )
        self.tokens = Counter(
            "nerve_tokens", "Tokens run, padding not counted", labels, registry=registry
        )
        self.padded = Counter(
            "nerve_padded_tokens", "Tokens run, padding counted", labels, registry=registry
        )
        self._users: collections.Counter[tuple[str, str]] = collections.Counter()

    def of(self, model: str, version: int) -> RunMetrics:
        """Those of one copy of a version; `close` them with it."""
        return RunMetrics(self, model, str(version))

    def take(self, model: str, version: str) -> None:
        """One copy more that counts."""
        self._users[model, version] += 1

    def drop(self, model: str, version: str) -> None:
        """One copy less; the series go with the last one, so that they do not pile up."""
        self._users[model, version] -= 1
        if self._users[model, version] > 0:
            return
        del self._users[model, version]
        for metric in (self.rows, self.seconds, self.tokens, self.padded):
            metric.remove_by_labels({"model": model, "version": version})


class RunMetrics:
    """What one loaded copy counts."""

    def __init__(self, metrics: EngineMetrics, model: str, version: str) -> None:
        self._metrics, self._model, self._version = metrics, model, version
        self._counts = False

    def observe(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Count one run."""
        if not self._counts:
            self._counts = True
            self._metrics.take(self._model, self._version)
        metrics, labels = self._metrics, (self._model, self._version)
        metrics.rows.labels(*labels).observe(rows)
        metrics.seconds.labels(*labels).observe(seconds)
        metrics.tokens.labels(*labels).inc(tokens)
        metrics.padded.labels(*labels).inc(padded_tokens)

    def close(self) -> None:
        """Nothing more will be counted."""
        if self._counts:
            self._counts = False
            self._metrics.drop(self._model, self._version)


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

        self._shadow = Counter(
            "nerve_shadow_requests",
            "Copies of requests for a shadow version: equal or different entities, failed, or "
            "skipped because too many were in flight",
            ["model", "version", "outcome"],
            registry=registry,
        )

        # Looking a series up takes longer than counting in it, and these are counted in by
        # every request. None of them is ever removed.
        self._of_requests = functools.cache(
            lambda dialect, status: (
                self._requests.labels(dialect, status),
                self._seconds.labels(dialect),
            )
        )
        self._of_texts = functools.cache(
            lambda model: (self._texts.labels(model), self._truncated.labels(model))
        )

    def observe_shadow(self, model: str, version: int, outcome: str) -> None:
        """Count a copy of a request."""
        self._shadow.labels(model, str(version), outcome).inc()

    def observe_request(self, dialect: str, status: str, seconds: float) -> None:
        """Count one answered request."""
        count, duration = self._of_requests(dialect, status)
        count.inc()
        duration.observe(seconds)

    def observe_texts(self, model: str, texts: int, truncated: int) -> None:
        """Count texts of one call."""
        tagged, cut = self._of_texts(model)
        tagged.inc(texts)
        cut.inc(truncated)


class RepositoryMetrics:
    """What becomes of models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "nerve_model_version_ready",
            "1 for each model version that answers",
            ["model", "version"],
            registry=registry,
        )
        self.stale = Gauge(
            "nerve_model_stale",
            "1 while something in the model's folder should be served but cannot be loaded",
            ["model"],
            registry=registry,
        )
        self.loads = Counter(
            "nerve_model_loads",
            "Loads of model versions: loaded, failed, or discarded because the files had changed",
            ["model", "outcome"],
            registry=registry,
        )
        self.load_seconds = Gauge(
            "nerve_model_load_seconds",
            "Time that the last load of a version took, proof and warm-up counted",
            ["model", "version"],
            registry=registry,
        )

    def forget(self, model: str) -> None:
        """Drop the gauges of a model that is gone; counters stay."""
        self.stale.remove_by_labels({"model": model})
        self.ready.remove_by_labels({"model": model})
        self.load_seconds.remove_by_labels({"model": model})

    def forget_version(self, model: str, version: int) -> None:
        """Drop the gauges of a version that is gone."""
        labels = {"model": model, "version": str(version)}
        self.ready.remove_by_labels(labels)
        self.load_seconds.remove_by_labels(labels)
