"""An OpenTelemetry collector's two receivers, OTLP over gRPC and HTTP, that keep what they get."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

PATH = "/v1/traces"
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
BOUND_S = 60.0


@dataclass(frozen=True, slots=True)
class Received:
    """A span, and the service that sent it."""

    service: str
    span: trace_pb2.Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> list[str]:
        """Ids of the spans that it is linked to."""
        return [link.span_id.hex() for link in self.span.links]

    @property
    def times(self) -> tuple[int, int]:
        """Begin and end, in nanoseconds since 1970."""
        return self.span.start_time_unix_nano, self.span.end_time_unix_nano

    @property
    def attributes(self) -> dict[str, Any]:
        return attributes(self.span.attributes)

    def holds(self, other: Received) -> bool:
        """Whether the other one began and ended within it."""
        (began, ended), (other_began, other_ended) = self.times, other.times
        return began <= other_began <= other_ended <= ended


def attributes(pairs: Any) -> dict[str, Any]:
    """Of a span or a resource."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@dataclass
class Collector:
    """What came so far, in its order."""

    spans: list[Received] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    url: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, body: bytes, headers: dict[str, str]) -> bytes:
        """One export; the answer to it."""
        self.raw.append(body)
        self.headers.append(headers)
        for of in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = attributes(of.resource.attributes)
            self.resources.append(about)
            for scope in of.scope_spans:
                self.spans += [Received(about["service.name"], span) for span in scope.spans]
        self.came.set()
        return bytes(ExportTraceServiceResponse().SerializeToString())

    def named(self, name: str) -> list[Received]:
        """Spans of that name."""
        return [each for each in self.spans if each.name == name]

    def only(self, name: str) -> Received:
        """The one span of that name."""
        (found,) = self.named(name)
        return found

    def children(self, parent: Received) -> list[Received]:
        """By begin."""
        found = [each for each in self.spans if each.parent == parent.id]
        return sorted(found, key=lambda each: each.times)

    async def until(self, name: str, count: int = 1) -> None:
        """Wait for so many spans of that name."""
        async with asyncio.timeout(BOUND_S):
            while len(self.named(name)) < count:
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def grpc_collector() -> AsyncIterator[Collector]:
    """One that listens for OTLP over gRPC."""
    collector = Collector()

    async def export(body: bytes, context: Any) -> bytes:
        sent = {key: str(value) for key, value in context.invocation_metadata() or ()}
        return collector.take(body, sent)

    class Router(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(export) if details.method == METHOD else None

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Router()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    collector.url = f"http://127.0.0.1:{port}"
    try:
        yield collector
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_collector() -> AsyncIterator[Collector]:
    """One that listens for OTLP over HTTP, with protobuf; it has a path of its own, too."""
    collector = Collector()

    async def export(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        told = collector.take(body, {key.lower(): value for key, value in request.headers.items()})
        return web.Response(body=told, content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post(PATH, export)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
