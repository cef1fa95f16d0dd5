"""Traces of requests, sent to an OpenTelemetry collector. The only home of OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nerve.config.settings.observing import ObserveSettings
from nerve.errors import SetupError

if TYPE_CHECKING:
    from nerve.tracing.tracing import Tracing


def new_tracing(settings: ObserveSettings) -> Tracing:
    """What traces requests; the SDK is imported for it, which takes a while.

    Raises:
        SetupError: the SDK or its exporters are not installed.
    """
    try:
        from nerve.tracing.tracing import Tracing  # noqa: PLC0415  see above
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("opentelemetry", "google", "requests"):
            raise
        raise SetupError(
            "enable_otel: the OpenTelemetry SDK with its OTLP exporters is not installed: run `pip "
            "install 'nerve-server[otel]'`, in the source `pip install '.[otel]'`"
        ) from error
    return Tracing(settings)
