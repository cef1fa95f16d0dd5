"""What is told of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nerve.config.settings.kinds import Port, Settings, collector, lower, words


class ObserveSettings(Settings):
    """What is told of it."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = (
        "info"
    )
    """Least severe line that is logged (to stderr)."""
    metrics_port: Port | None = None
    """Port of their own for /metrics, /livez and /readyz; that of HTTP does not serve /metrics then.
    0 lets the kernel pick one, which is then announced."""
    metrics_hostname: str = "0.0.0.0"  # noqa: S104  as http_hostname
    """Address that the metrics' own port listens on."""
    metrics_compat: Annotated[list[Literal["triton", "tei"]], BeforeValidator(words)] = []  # noqa: RUF012  pydantic copies it
    """Metrics as another server names them, besides our own: triton (nv_*), tei (te_*), none. In
    NERVE_METRICS_COMPAT separated by commas."""
    log_format: Annotated[Literal["console", "json"], BeforeValidator(lower)] = "console"
    """How: lines for people, or a JSON object a line."""
    access_log: bool = False
    """Log a line at level info for each request; else they are there at level debug."""
    enable_otel: bool = False
    """Send traces to an OpenTelemetry collector (OTLP)."""
    otel_exporter_url: Annotated[str, AfterValidator(collector)] | None = None
    """The collector. If not given: $OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4317 (4318 for
    http/protobuf)."""
    otel_exporter_protocol: (
        Annotated[Literal["grpc", "http/protobuf"], BeforeValidator(lower)] | None
    ) = None
    """OTLP over what. If not given: $OTEL_EXPORTER_OTLP_PROTOCOL, else http/protobuf for a URL with port
    4318 or a path, else grpc."""
    otel_service_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The service in traces. If not given: $OTEL_SERVICE_NAME, else nerve."""
    otel_sample_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of requests that are traced, of those whose caller did not decide. If not given:
    $OTEL_TRACES_SAMPLER, else all."""
