"""What models' transforms do."""

from __future__ import annotations

import collections

from prometheus_client import CollectorRegistry, Counter, Histogram

from nerve.metrics.buckets import SECONDS


class TransformMetrics:
    """What transforms count, by model; a model without one has no series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "nerve_transform_seconds",
            "Time that a request's scores spent at the model's transform, waiting included",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "nerve_transform_failures",
            "Requests whose transform failed, went over a limit, or was not available",
            ["model", "reason"],
            registry=registry,
        )
        self.restarts = Counter(
            "nerve_transform_restarts",
            "Processes that were started because the one before them had died or been killed",
            ["model"],
            registry=registry,
        )
        self._users: collections.Counter[str] = collections.Counter()

    def of(self, model: str) -> CopyTransformMetrics:
        """Those of one loaded copy; `close` them with it."""
        self._users[model] += 1
        return CopyTransformMetrics(self, model)

    def drop(self, model: str) -> None:
        """One copy less; the series go with the last one."""
        self._users[model] -= 1
        if self._users[model] > 0:
            return
        del self._users[model]
        for metric in (self.seconds, self.failures, self.restarts):
            metric.remove_by_labels({"model": model})


class CopyTransformMetrics:
    """What the transform of one loaded copy counts: `nerve.transforming.host.Watcher`."""

    def __init__(self, metrics: TransformMetrics, model: str) -> None:
        self._metrics, self._model, self._closed = metrics, model, False
        self._seconds = metrics.seconds.labels(model)
        self._restarts = metrics.restarts.labels(model)

    def done(self, seconds: float) -> None:
        """A request has its scores, after so long."""
        self._seconds.observe(seconds)

    def failed(self, reason: str) -> None:
        """A request has none, because of an error with that reason."""
        if not self._closed:
            self._metrics.failures.labels(self._model, reason).inc()

    def restarted(self) -> None:
        """A process took the place of one that was lost."""
        self._restarts.inc()

    def close(self) -> None:
        """Nothing more will be counted."""
        if not self._closed:
            self._closed = True
            self._metrics.drop(self._model)
