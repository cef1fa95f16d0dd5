"""What the engines count."""

from __future__ import annotations

import collections

from prometheus_client import CollectorRegistry, Counter, Histogram

from nerve.metrics.buckets import ROWS, SECONDS


class EngineMetrics:
    """What engines count, by model and version."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["model", "version"]
        self.rows = Histogram(
            "nerve_batch_rows", "Rows in one run", labels, buckets=ROWS, registry=registry
        )
        self.seconds = Histogram(
            "nerve_run_seconds", "Duration of one run", labels, buckets=SECONDS, registry=registry
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
