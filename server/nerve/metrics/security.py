"""What is counted of keys and certificates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class SecurityMetrics:
    """What is counted of keys and certificates."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reloads = Counter(
            "nerve_credential_reloads",
            "Changed files of API keys or of TLS that were read again: loaded, or failed, where the "
            "old ones stay in use",
            ["kind", "outcome"],
            registry=registry,
        )

    def started(self, kind: str) -> None:
        """`kind` is in use: have its series, so that a first failure is seen as an increase."""
        for outcome in ("loaded", "failed"):
            self._reloads.labels(kind, outcome)

    def reloaded(self, kind: str, outcome: str) -> None:
        """Count it; `kind` is api_keys or tls."""
        self._reloads.labels(kind, outcome).inc()
