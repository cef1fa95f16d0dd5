"""What is counted of keys and certificates."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge


class SecurityMetrics:
    """What is counted of keys and certificates."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._expiry = Gauge(
            "nerve_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires, in seconds since 1970; 0 if it had expired "
            "when it was read, NaN if that cannot be told",
            ["kind"],  # so that there is no series without TLS
            registry=registry,
        )
        self._reloads = Counter(
            "nerve_credential_reloads",
            "Changed files of API keys or of TLS that were read again: loaded, or failed, where the "
            "old ones stay in use",
            ["kind", "outcome"],
            registry=registry,
        )

    def certificate(self, until: Callable[[], float | None]) -> None:
        """There is TLS. `until`: seconds since 1970; 0 once that is over, None if it cannot be told."""
        self._expiry.labels("tls").set_function(lambda: nan if (when := until()) is None else when)

    def started(self, kind: str) -> None:
        """`kind` is in use: have its series, so that a first failure is seen as an increase."""
        for outcome in ("loaded", "failed"):
            self._reloads.labels(kind, outcome)

    def reloaded(self, kind: str, outcome: str) -> None:
        """Count it; `kind` is api_keys or tls."""
        self._reloads.labels(kind, outcome).inc()
