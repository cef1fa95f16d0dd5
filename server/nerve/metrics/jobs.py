"""What is counted of requests that are answered later."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

WAITS_S: Final = (
    0.01,
    0.05,
    0.1,
    0.5,
    1,
    5,
    10,
    30,
    60,
    300,
    600,
    1800,
    3600,
    14400,
    86400,
    259200,
)
"""To the longest that a request may wait."""
ENDS: Final = ("succeeded", "failed", "expired", "canceled")
ATTEMPTS: Final = ("succeeded", "failed", "retried", "postponed", "lost")
DELIVERIES: Final = ("succeeded", "failed", "retried", "postponed", "lost")


class JobMetrics:
    """What is counted of requests that are answered later; no series where there are none such."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Gauge(
            "nerve_async_requests",
            "Async requests that wait or are worked on, of all servers that share the store",
            ["status"],
            registry=registry,
        )
        self._finished = Counter(
            "nerve_async_finished", "Async requests that ended", ["status"], registry=registry
        )
        self._attempts = Counter(
            "nerve_async_attempts",
            "Attempts at async requests: postponed ones met an overloaded or loading model and are "
            "none, lost ones had become another server's",
            ["outcome"],
            registry=registry,
        )
        self._queue_seconds = Histogram(
            "nerve_async_queue_seconds",
            "Time from the acceptance of an async request to its first attempt",
            buckets=WAITS_S,
            registry=registry,
        )
        self._deliveries = Counter(
            "nerve_async_deliveries",
            "Messages to webhooks: postponed ones were not sent, as their receiver is slow",
            ["outcome"],
            registry=registry,
        )
        self._kept = Gauge(
            "nerve_async_kept_bytes",
            "Bodies and results of async requests that the store holds",
            registry=registry,
        )

    def started(self) -> None:
        """There is async inference: have the series, so that a first failure is an increase."""
        for status in ENDS:
            self._finished.labels(status)
        for outcome in ATTEMPTS:
            self._attempts.labels(outcome)
        for outcome in DELIVERIES:
            self._deliveries.labels(outcome)

    def counts(self, *, queued: int, in_progress: int, kept_bytes: int) -> None:
        """What there is now."""
        self._requests.labels("queued").set(queued)
        self._requests.labels("in_progress").set(in_progress)
        self._kept.set(kept_bytes)

    def finished(self, status: str, number: int = 1) -> None:
        """So many ended like that."""
        self._finished.labels(status.lower()).inc(number)

    def attempt(self, outcome: str) -> None:
        """An attempt came to this."""
        self._attempts.labels(outcome).inc()

    def waited(self, seconds: float) -> None:
        """A request was tried for the first time."""
        self._queue_seconds.observe(max(seconds, 0.0))

    def delivery(self, outcome: str) -> None:
        """A message came to this."""
        self._deliveries.labels(outcome).inc()
