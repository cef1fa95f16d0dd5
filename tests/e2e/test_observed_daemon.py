"""What the real daemon tells of its requests: traces until its end, and a log for programs."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from collector import grpc_collector
from support import running_server

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUESTS = 20


async def test_traces_and_logs_tell_the_same(
    bundled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All spans of what was answered are there when it has ended, however soon after; every line of
    the log is an object, those of requests with the ids of their spans. gRPC, which it serves and
    sends traces with, does not mind the processes that it starts."""
    async with grpc_collector() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "tagger"}
        flags = ["--enable-otel", "--log-format", "json", "--access-log"]
        sent = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        async with (
            running_server(str(bundled), *flags, env=environment) as daemon,
            aiohttp.ClientSession(daemon.url, headers=sent) as http,
        ):
            for _ in range(REQUESTS):
                async with http.post("/predict_tokens", json={"inputs": "Berlin"}) as answer:
                    assert answer.status == 200
    assert len(collector.named("POST /predict_tokens")) == REQUESTS
    assert len(collector.named("batch")) == REQUESTS
    assert {(each.service, each.trace) for each in collector.spans} == {("tagger", TRACE)}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = [line for line in lines if line["logger"] == "nerve.access"]
    assert len(told) == REQUESTS
    assert {line["trace_id"] for line in told} == {TRACE}
    spans = {each.id for each in collector.named("POST /predict_tokens")}
    assert {line["span_id"] for line in told} == spans
    assert any("SIGTERM" in line["message"] for line in lines)
