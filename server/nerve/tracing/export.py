"""The SDK's part: who we are, which requests are traced, where and how their spans are sent.

What our settings leave open is said by the variables of the OpenTelemetry specification
(OTEL_EXPORTER_OTLP_…, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_…), read by the SDK.
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from nerve import __version__
from nerve.config.settings.observing import ObserveSettings
from nerve.errors import SetupError

log = logging.getLogger(__name__)

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
HTTP_PORT: Final = 4318
VARIABLES: Final = "OTEL_EXPORTER_OTLP_"
"""How the names of those begin that the exporters read."""
TRACES_PATH: Final = "/v1/traces"
QUIET_S: Final = 60.0
"""A complaint of the SDK's is not logged again within so many seconds."""
MAX_COMPLAINTS: Final = 64
"""Kinds of complaints that are told apart."""
_DEFAULT_NAME: Final = "nerve"


def protocol_of(settings: ObserveSettings) -> str:
    """`GRPC` or `HTTP`.

    Raises:
        SetupError: the variable for it names another one.
    """
    if settings.otel_exporter_protocol is not None:
        return settings.otel_exporter_protocol
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := os.environ.get(name, "").strip().lower():
            if value not in (GRPC, HTTP):
                raise SetupError(f"{name}: expected {GRPC} or {HTTP}, got {value!r:.40}")
            return value
    url = settings.otel_exporter_url
    if url is None:
        return GRPC
    parts = urlsplit(url)
    return HTTP if parts.port == HTTP_PORT or parts.path not in ("", "/") else GRPC


def new_exporter(settings: ObserveSettings) -> SpanExporter:
    """What sends spans. Raises SetupError: what a variable says cannot be used."""
    protocol, url = protocol_of(settings), settings.otel_exporter_url
    try:
        if protocol == GRPC:
            return GrpcExporter(endpoint=url)
        return HttpExporter(endpoint=None if url is None else traces_url(url))
    except Exception as error:  # whatever the SDK raises for a variable that is wrong
        told = "".join(f"{name}: " for name in _named_by(error))
        raise SetupError(f"traces cannot be sent: {told}{error}") from error


def _named_by(error: Exception) -> list[str]:
    """The variables of the exporters whose value an error repeats."""
    given = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)}
    return [name for name, value in given.items() if value and repr(value) in str(error)]


def collector_url(settings: ObserveSettings) -> str:
    """Where spans are sent, "" where that is left to the SDK."""
    url = settings.otel_exporter_url
    for name in ("TRACES_ENDPOINT", "ENDPOINT"):
        if url is None:
            url = os.environ.get(VARIABLES + name) or None
            if url is not None and name == "TRACES_ENDPOINT":
                return url  # as it stands
    if url is None:
        return ""
    return traces_url(url) if protocol_of(settings) == HTTP else url


def traces_url(url: str) -> str:
    """Where OTLP over HTTP posts to: `url`, with the specification's path if it has none. Pure."""
    parts = urlsplit(url)
    path = TRACES_PATH if parts.path in ("", "/") else parts.path
    return urlunsplit(parts._replace(path=path))


def new_provider(
    settings: ObserveSettings, exporter: SpanExporter
) -> tuple[TracerProvider, SpanProcessor]:
    """What makes spans, and what hands those that have ended to `exporter`, in a thread of its own.

    Raises:
        SetupError: what a variable says cannot be used.
    """
    ratio = settings.otel_sample_ratio
    try:
        provider = TracerProvider(
            sampler=None if ratio is None else ParentBasedTraceIdRatio(ratio),
            resource=_resource(settings),
            shutdown_on_exit=False,  # `Tracing.aclose` does, within a bound
        )
        processor = BatchSpanProcessor(exporter)
    except ValueError as error:  # the variables for its queue
        raise SetupError(f"traces cannot be sent: OTEL_BSP_…: {error}") from error
    provider.add_span_processor(processor)
    return provider, processor


def share_of(provider: TracerProvider) -> float:
    """The share of requests that are traced, of those whose caller did not decide: by our setting, or by
    the variable. A sampler that is none of the specification's may take any: 1."""
    described = provider.sampler.get_description().removeprefix("ParentBased{root:")
    if described.startswith("AlwaysOff"):
        return 0.0
    ratio = re.match(r"TraceIdRatioBased{([^}]+)}", described)
    return 1.0 if ratio is None else float(ratio[1])


def _resource(settings: ObserveSettings) -> Resource:
    about = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    if settings.otel_service_name is not None:
        about[SERVICE_NAME] = settings.otel_service_name
    resource = Resource.create(about)
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: _DEFAULT_NAME}))
    return resource


class Complaints(logging.Handler):
    """What the SDK logs becomes a line of ours, without its traceback, each kind now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, url: str = "") -> None:
        """`clock` gives monotonic seconds; `url` is the collector's, which not every line tells."""
        super().__init__(logging.WARNING)
        self._clock, self._url = clock, url
        self._told: dict[str, float] = {}
        self._logger = logging.getLogger("opentelemetry")
        self._propagated = True
        self._hushed = False

    def begin(self) -> None:
        """Take what is logged from now on."""
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)

    def hush(self) -> None:
        """Tell of nothing any more, until the end."""
        self._hushed = True

    def end(self) -> None:
        """Leave it to the root again."""
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of it, unless its like was told lately."""
        if self._hushed:
            return
        now, kind = self._clock(), str(record.msg)
        since = self._told.get(kind)
        if since is not None and now - since < QUIET_S:
            return
        if kind not in self._told and len(self._told) >= MAX_COMPLAINTS:
            return
        self._told[kind] = now
        to = f" to {self._url}" if self._url else ""
        log.warning("traces%s: %s", to, record.getMessage())
