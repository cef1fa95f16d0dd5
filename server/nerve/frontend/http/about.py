"""What a page has to know of the server that it came from: /v1/server and /v1/metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, Field

import nerve
from nerve.config.server import ServerConfig
from nerve.frontend.http.dialect import JSON, json_response
from nerve.frontend.http.tei import MAX_BODY_BYTES
from nerve.metrics.exposition import Exposition

METRICS_PATH = "/v1/metrics"


class HttpDoor(BaseModel):
    """HTTP."""

    tls: bool


class GrpcDoor(BaseModel):
    """gRPC."""

    port: int | None
    """Null if the server does not listen for gRPC."""
    tls: bool


class RequestLimits(BaseModel):
    """Limits of a request, whatever the model."""

    max_client_batch_size: int
    """Texts in one request on predict_tokens and tokenize."""
    max_inputs: int
    """Texts in one request on predict and over gRPC."""
    max_body_bytes: int
    """Size of a body after decompression, on most routes."""
    max_predict_tokens_bytes: int
    """The same on predict_tokens, tokenize and decode."""
    max_infer_bytes: int
    """Size of a request of the Open Inference Protocol, and of a gRPC message."""
    request_timeout_s: float
    """Longest time from a request's arrival to its answer, in seconds."""


class ServerInfo(BaseModel):
    """The server, as it was told to be."""

    name: Literal["nerve"] = "nerve"
    version: str
    http: HttpDoor
    grpc: GrpcDoor
    model_control: bool
    """Whether models may be loaded and unloaded by request."""
    keys: bool
    """Whether requests need an API key."""
    metrics: bool
    """Whether /metrics and /v1/metrics are served here, and not on a port of their own."""
    async_: bool = Field(alias="async")
    """Whether requests may be answered later."""
    limits: RequestLimits


class MetricSample(BaseModel):
    """A number, and what it is of."""

    name: str
    """The family's, or that with _bucket, _sum or _count behind it."""
    labels: dict[str, str]
    """Of a bucket also `le`, its upper bound: a number as text, or +Inf."""
    value: float | Literal["NaN", "+Inf", "-Inf"]


class MetricFamily(BaseModel):
    """All samples of a metric."""

    name: str
    """As on Prometheus' page."""
    type: str
    help: str
    samples: list[MetricSample]
    """None if nothing was counted yet."""


class MetricFamilies(BaseModel):
    """Metrics at one time."""

    time: float
    """Seconds since 1970 began (UTC)."""
    metrics: list[MetricFamily]
    """By name."""


class About:
    """The handlers of both routes."""

    def __init__(
        self,
        config: ServerConfig,
        exposition: Exposition,
        *,
        keys: bool,
        grpc_port: Callable[[], int | None],
    ) -> None:
        """Tells of this server.

        Args:
            config: its settings.
            exposition: makes the metrics.
            keys: whether it wants API keys.
            grpc_port: gives the port of gRPC, None while there is none.
        """
        self._config, self._exposition = config, exposition
        self._keys, self._grpc_port = keys, grpc_port

    def info(self) -> ServerInfo:
        """What /v1/server answers now."""
        config, tls = self._config, self._config.cert_file is not None
        limits = {
            name: getattr(config, name)
            for name in RequestLimits.model_fields
            if name in ServerConfig.model_fields
        }
        return ServerInfo(
            version=nerve.__version__,
            http=HttpDoor(tls=tls),
            grpc=GrpcDoor(port=self._grpc_port(), tls=tls),
            model_control=config.model_control,
            keys=self._keys,
            metrics=config.metrics_port is None,
            **{"async": config.async_store is not None},
            limits=RequestLimits(
                max_predict_tokens_bytes=min(config.max_body_bytes, MAX_BODY_BYTES), **limits
            ),
        )

    async def server(self, _request: web.Request) -> web.Response:
        """Handles /v1/server."""
        return json_response(self.info().model_dump(by_alias=True))

    async def metrics(self, request: web.Request) -> web.Response:
        """Handles /v1/metrics.

        Raises:
            InvalidField: a `name` of the query is that of no metric.
        """
        found = await self._exposition.families(request.query.getall("name", []))
        value = {"time": time.time(), "metrics": found}
        body = await asyncio.to_thread(orjson.dumps, value)  # of all metrics: long
        return web.Response(body=body, content_type=JSON)
