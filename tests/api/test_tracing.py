"""Traces of real requests, as a collector receives them, and what answers tell of them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.conftest import Client, Repository, serving
from collector import Collector, grpc_collector, http_collector
from grpc_calls import LISTENING, calling, port_of, refusal, trailers
from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.tracing import tracing as tracing_module

SECRET = "Angela Merkel lives in Timbuktu"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
ROUTE = "/v1/models/{model}/predict_tokens"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with grpc_collector() as collector:
        yield collector


def tracing(
    repository: Repository, collector: Collector, **more: object
) -> AbstractAsyncContextManager[Client]:
    """A server that sends its traces there; the last of them when the block ends."""
    return serving(repository.path, enable_otel=True, otel_exporter_url=collector.url, **more)


def texts_sent(collector: Collector) -> bytes:
    return b"".join(collector.raw)


@contextmanager
def traced_caller(collector: Collector) -> Iterator[TracerProvider]:
    """Another program's SDK, which sends to the same collector."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": "caller"}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector.url)))
    yield provider


async def test_one_trace_across_client_server_and_batch(
    repository: Repository, collector: Collector
) -> None:
    """Every stage within the request, one after the other; the batch is its child."""
    repository.add("ner")
    with traced_caller(collector) as provider:
        async with tracing(repository, collector) as http:
            with provider.get_tracer("caller").start_as_current_span(
                "tag", kind=SpanKind.CLIENT
            ) as span:
                headers: dict[str, str] = {}
                TraceContextTextMapPropagator().inject(headers)
                answer = await http.predict_tokens(SECRET, model="ner", headers=headers)
            assert answer.status == 200
        await asyncio.to_thread(provider.shutdown)
    client, server = collector.only("tag"), collector.only(f"POST {ROUTE}")
    assert (client.service, server.service) == ("caller", "nerve")
    assert {each.trace for each in collector.spans} == {client.trace}
    assert server.parent == client.id
    assert client.trace == f"{span.get_span_context().trace_id:032x}"
    assert answer.headers["traceparent"].startswith(f"00-{server.trace}-{server.id}-")
    stages = collector.children(server)
    assert [each.name for each in stages] == ["tokenize", "queue", "batch", "decode"]
    assert client.holds(server)
    assert all(server.holds(each) for each in stages)
    assert all(one.times[1] <= next_.times[0] for one, next_ in itertools.pairwise(stages))
    assert server.span.kind == 2  # SERVER
    about = server.attributes
    assert about.pop("nerve.request_id") == answer.headers["x-request-id"]
    assert about.pop("nerve.tokens") == stages[2].attributes["nerve.tokens"] > 4
    assert about == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "nerve.dialect": "baseten",
        "nerve.model": "ner",
        "nerve.version": 1,
        "nerve.texts": 1,
    }
    batch = stages[2].attributes
    assert (batch["nerve.rows"], batch["nerve.requests"], batch["nerve.device"]) == (1, 1, "cpu")
    assert batch["nerve.padded_tokens"] >= batch["nerve.tokens"]
    assert b"Timbuktu" not in texts_sent(collector)


async def test_a_batch_is_linked_with_all_its_requests(
    repository: Repository, collector: Collector
) -> None:
    """It is a child of the first one; the other has a link to it, and keeps a trace of its own."""
    repository.add_patient("patient")
    async with (
        tracing(repository, collector) as http,
        http.waiting(
            http.predict_tokens("a", model="patient", headers={"x-request-id": "first"})
        ) as first,
    ):
        await http.queued("patient", 1)
        second = await http.predict_tokens("a", model="patient", headers={"x-request-id": "second"})
        assert (second.status, (await first).status) == (200, 200)
    servers = {
        each.attributes["nerve.request_id"]: each for each in collector.named(f"POST {ROUTE}")
    }
    leader, other = servers["first"], servers["second"]
    batch, infer = collector.only("batch"), collector.only("infer")
    assert leader.trace != other.trace
    assert (batch.trace, batch.parent, batch.links) == (leader.trace, leader.id, [other.id])
    assert (infer.trace, infer.parent, infer.links) == (other.trace, other.id, [batch.id])
    assert batch.span.links[0].trace_id.hex() == other.trace
    assert infer.span.links[0].trace_id.hex() == leader.trace
    assert infer.times == batch.times
    assert batch.attributes["nerve.requests"] == 2
    assert [each.name for each in collector.children(other)] == [
        "tokenize", "queue", "infer", "decode",
    ]  # fmt: skip


async def test_the_caller_decides_whether_it_is_traced(
    repository: Repository, collector: Collector
) -> None:
    """What is nobody's is traced by the ratio, here not at all."""
    repository.add("ner")
    async with tracing(repository, collector, otel_sample_ratio=0.0) as http:
        answers = [
            await http.predict_tokens("a", model="ner", headers={"traceparent": sent})
            for sent in (SAMPLED, UNSAMPLED, "00-nonsense", "")
        ]
    sampled, unsampled, *others = [answer.headers["traceparent"] for answer in answers]
    assert sampled[:36] == unsampled[:36] == f"00-{TRACE}-"
    assert (sampled[-2:], unsampled[-2:]) == ("01", "00")
    assert all(int(other[-2:], 16) & 1 == 0 and TRACE not in other for other in others)
    (server,) = [each for each in collector.spans if each.name.startswith("POST")]
    assert (server.trace, server.parent) == (TRACE, SPAN)
    assert {each.trace for each in collector.spans} == {TRACE}


async def test_over_http(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a path means OTLP over HTTP; what the settings leave open is said by the variables."""
    repository.add("ner")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    async with http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        async with serving(repository.path, enable_otel=True, otel_service_name="tagger") as http:
            await http.predict_tokens("a", model="ner")
    assert collector.only("batch").service == "tagger"
    assert collector.headers[0]["x-token"] == "abc"
    assert collector.resources[0]["deployment.environment.name"] == "test"
    assert re.fullmatch(r"[0-9a-f-]{36}", collector.resources[0]["service.instance.id"])


async def test_grpc_calls(repository: Repository, collector: Collector) -> None:
    repository.add("ner")
    async with (
        tracing(repository, collector, **LISTENING) as http,
        calling(port_of(http.server.announced)) as caller,
    ):
        sent = (("traceparent", SAMPLED), ("x-request-id", "mine"))
        request = pb.ExtractRequest(model="ner", texts=[SECRET])
        call = caller.start("Extract", request, sent=sent)
        await call
        told = dict(await call.trailing_metadata())
        error = await refusal(
            caller.start("Extract", pb.ExtractRequest(model="none", texts=["a"]), sent=sent)
        )
    good, bad = collector.named("nerve.v1.Nerve/Extract")
    assert (told["x-request-id"], told["x-nerve-model"]) == ("mine", "ner")
    assert told["traceparent"] == f"00-{TRACE}-{good.id}-01"
    assert trailers(error)["traceparent"] == f"00-{TRACE}-{bad.id}-01"
    assert trailers(error)["x-request-id"] == "mine"
    assert (good.parent, bad.parent) == (SPAN, SPAN)
    names = [each.name for each in collector.children(good)]
    assert names == ["tokenize", "queue", "batch", "decode"]
    about = good.attributes
    assert (about["rpc.system"], about["rpc.service"], about["rpc.method"]) == (
        "grpc", "nerve.v1.Nerve", "Extract",
    )  # fmt: skip
    assert about["rpc.grpc.status_code"] == 0
    assert bad.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert bad.attributes["error.type"] == "model_not_found"
    assert bad.span.status.code == 0  # the caller's fault
    assert b"Timbuktu" not in texts_sent(collector)


async def test_errors_and_what_is_not_traced(repository: Repository, collector: Collector) -> None:
    """A server's fault is an error of its span, a client's is told by it; probes have none."""
    repository.add_rule("rule")
    async with tracing(repository, collector) as http:
        await http.get("/livez")
        await http.get("/readyz")
        await http.get("/metrics")
        await http.get("/v2/health/ready")
        assert (await http.predict_tokens("early", model="rule")).status == 424
        assert (await http.predict_tokens(f"{SECRET}", model="none")).status == 404
        assert (await http.send("POST", f"/{SECRET[:6]}", data=b"{}")).status == 404
    failed, missing, unknown = sorted(
        (each for each in collector.spans if each.name.startswith("POST")),
        key=lambda each: each.times,
    )
    assert len([each for each in collector.spans if not each.parent]) == 3
    assert failed.attributes["error.type"] == "inference_failed"
    (stage,) = [each for each in collector.children(failed) if each.name == "infer"]
    assert stage.attributes == {"nerve.reason": "inference_failed"}
    assert (missing.span.status.code, missing.attributes["error.type"]) == (0, "model_not_found")
    assert (unknown.name, unknown.attributes["error.type"]) == ("POST", "not_served")
    assert "http.route" not in unknown.attributes
    assert b"Angela" not in texts_sent(collector)


async def test_a_caller_that_leaves(repository: Repository, collector: Collector) -> None:
    repository.add_patient("patient")
    async with tracing(repository, collector) as http:
        async with http.waiting(http.predict_tokens("a", model="patient")):
            await http.queued("patient", 1)
        await http.queued("patient", 0)
    server = collector.only(f"POST {ROUTE}")
    assert server.attributes["error.type"] == "cancelled"
    assert "http.response.status_code" not in server.attributes
    assert server.span.status.code == 0


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_no_collector_does_no_harm(
    repository: Repository,
    protocol: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests are answered, the end is not held up, and a line tells of it, without a traceback."""
    monkeypatch.setattr(tracing_module, "FLUSH_S", 0.5)
    repository.add("ner")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    more: dict[str, Any] = {"otel_exporter_url": url, "otel_exporter_protocol": protocol}
    async with serving(repository.path, enable_otel=True, **more) as http:
        for _ in range(5):
            assert (await http.predict_tokens("a", model="ner")).status == 200
        async with asyncio.timeout(20):
            while not any(each.name == "nerve.tracing.export" for each in caplog.records):
                await asyncio.sleep(0.005)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 20  # of 30
    told = [
        each
        for each in caplog.records
        if each.levelno >= logging.WARNING and each.name != "asyncio"
    ]
    assert {each.name for each in told} <= {"nerve.tracing.export", "nerve.tracing.tracing"}
    assert not [each for each in told if each.exc_info]
    assert len(told) <= 4
