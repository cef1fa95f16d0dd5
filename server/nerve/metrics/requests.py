"""What the front ends and the service count."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nerve.exchange import Exchange
from nerve.metrics.buckets import SECONDS
from nerve.metrics.copies import Copies
from nerve.metrics.entities import EntityMetrics
from nerve.metrics.refusals import REASONS
from nerve.metrics.versions import CANCELLED, VersionMetrics

PROTOCOLS: Final = ("async", "grpc", "http", "mcp")


class RequestMetrics:
    """What the front ends and the service count: `nerve.exchange.Observer`, and more."""

    def __init__(self, registry: CollectorRegistry, copies: Copies | None = None) -> None:
        """`copies` is shared with whatever else counts by version."""
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
        self._refused = Counter(
            "nerve_refused_requests",
            "Requests that were refused: by a limit, for lack of a key, or while it cannot be",
            ["reason"],
            registry=registry,
        )
        self._shadow = Counter(
            "nerve_shadow_requests",
            "Copies of requests for a shadow version: equal or different entities, failed, or "
            "skipped because too many were in flight",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self._items = Counter(
            "nerve_stream_items",
            "Items of ExtractStream: ok, or the reason of the item's own error",
            ["outcome"],
            registry=registry,
        )
        copies = Copies() if copies is None else copies
        copies.follow(versions=(self._shadow,))
        self.versions = VersionMetrics(registry, copies)
        self.entities = EntityMetrics(registry, copies)
        self._in_flight: collections.Counter[str] = collections.Counter()
        self._show_in_flight(registry)
        for reason in sorted(REASONS):  # from 0 on, so that the first one is an increase
            self._refused.labels(reason)

        # Looking a series up takes longer than counting in it, and these are counted in by
        # every request. None of them is ever removed.
        self._of_requests = functools.cache(
            lambda dialect, status: (
                self._requests.labels(dialect, status),
                self._seconds.labels(dialect),
            )
        )

    def _show_in_flight(self, registry: CollectorRegistry) -> None:
        gauge = Gauge(
            "nerve_in_flight_requests",
            "Requests that are being answered; a call over HTTP of an MCP tool is one of each",
            ["protocol"],
            registry=registry,
        )
        for protocol in PROTOCOLS:
            gauge.labels(protocol).set_function(
                functools.partial(self._in_flight.__getitem__, protocol)
            )

    def observe_shadow(self, model: str, version: int, outcome: str) -> None:
        """Count a copy of a request."""
        self._shadow.labels(model, str(version), outcome).inc()

    def observe_items(self, outcomes: Iterable[str]) -> None:
        """Count the items of a message of a stream."""
        for outcome in outcomes:
            self._items.labels(outcome).inc()

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:  # noqa: ARG002
        """See `nerve.exchange.Observer`."""
        self._in_flight[exchange.protocol] += 1

    def finished(self, exchange: Exchange) -> None:
        """Count a request that was answered, or whose caller has left before."""
        self._in_flight[exchange.protocol] -= 1
        if not exchange.counts:
            return
        status = CANCELLED if exchange.left else exchange.status or CANCELLED
        count, duration = self._of_requests(exchange.dialect, status)
        count.inc()
        duration.observe(exchange.seconds)
        if exchange.reason in REASONS:
            self._refused.labels(exchange.reason).inc()
