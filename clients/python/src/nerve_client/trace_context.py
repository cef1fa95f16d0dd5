"""The caller's trace goes with its requests, if it has OpenTelemetry."""

from __future__ import annotations

try:
    from opentelemetry.propagate import inject
except ImportError:  # nothing of it is needed here
    inject = None  # type: ignore[assignment]


def trace_context() -> dict[str, str]:
    """Headers or metadata of the current span, by the propagators that the program has chosen."""
    carried: dict[str, str] = {}
    if inject is not None:
        inject(carried)
    return carried
