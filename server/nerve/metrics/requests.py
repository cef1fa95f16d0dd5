"""What the front ends and the service count."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from nerve.exchange import Exchange
from nerve.metrics.buckets import SECONDS


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
            buckets=SECONDS,
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

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """See `nerve.exchange.Observer`."""

    def finished(self, exchange: Exchange) -> None:
        """Count a request that was answered."""
        if exchange.counts:
            count, duration = self._of_requests(exchange.dialect, exchange.status)
            count.inc()
            duration.observe(exchange.seconds)

    def observe_texts(self, model: str, texts: int, truncated: int) -> None:
        """Count texts of one call."""
        tagged, cut = self._of_texts(model)
        tagged.inc(texts)
        cut.inc(truncated)
