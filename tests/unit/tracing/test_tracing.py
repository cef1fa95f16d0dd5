"""Requests as spans: names, attributes, limits; the wire is tests/api/test_tracing.py's."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from nerve.config.settings.observing import ObserveSettings
from nerve.errors import NerveError, SetupError
from nerve.exchange import Exchange
from nerve.frontend.status import TABLE
from nerve.tracing import new_tracing
from nerve.tracing.attributes import (
    beginning_of,
    client_address,
    end_of,
    error_of,
    is_fault,
    name_of,
)
from nerve.tracing.tracing import MAX_STAGES, STEP_NS, Clock, Tracing
from nerve.types import TracedRun


def http(method: str = "POST", route: str = "/predict", **more: object) -> Exchange:
    exchange = Exchange("http", "encoderfile", method, route)
    for name, value in more.items():
        setattr(exchange, name, value)
    return exchange


def grpc(**more: object) -> Exchange:
    exchange = http("", "/a.b.C/Do", status="ERROR", **more)
    exchange.protocol = "grpc"
    return exchange


def mcp(**more: object) -> Exchange:
    exchange = http("", "run_encoder", status="ERROR", **more)
    exchange.protocol = "mcp"
    return exchange


@pytest.mark.parametrize(
    ("exchange", "name"),
    [
        (http(), "POST /predict"),
        (http(route=""), "POST"),
        (http("EVIL-METHOD-OF-A-CLIENT"), "HTTP /predict"),
        (grpc(), "a.b.C/Do"),
        (Exchange("mcp", "mcp", "", "run_encoder"), "tools/call run_encoder"),
        (Exchange("mcp", "mcp", "", ""), "tools/call"),
        (
            Exchange("async", "baseten", "", "/async/predict_tokens"),
            "process /async/predict_tokens",
        ),
    ],
)
def test_names_are_few(exchange: Exchange, name: str) -> None:
    assert name_of(exchange) == name


def test_a_method_that_nobody_knows_is_not_told() -> None:
    assert beginning_of(http("EVIL"))["http.request.method"] == "_OTHER"
    assert "http.route" not in beginning_of(http(route=""))


def test_what_is_answered_later_is_no_call_of_grpc() -> None:
    """It is told by the id that its client got."""
    later = Exchange("async", "baseten", "", "/async/predict_tokens", request_id="7a3f")
    told = beginning_of(later)
    assert told["messaging.message.id"] == told["nerve.request_id"] == "7a3f"
    assert not [name for name in told if name.startswith(("rpc.", "http."))]
    later.status, later.reason = "500", "inference_failed"
    assert is_fault(later)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("ipv4:10.0.0.7:53412", "10.0.0.7"),
        ("ipv6:%5B::1%5D:53412", "::1"),
        ("ipv6:[2001:db8::1]:53412", "2001:db8::1"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_addresses_of_clients(peer: str, address: str) -> None:
    assert client_address(peer) == address


@pytest.mark.parametrize(
    ("exchange", "why", "fault"),
    [
        (http(status="200"), "", False),
        (http(status="404", reason="model_not_found"), "model_not_found", False),
        (http(status="405"), "405", False),
        (http(status="503", reason="queue_full"), "queue_full", True),
        (http(left=True), "cancelled", False),
        (grpc(code="NOT_FOUND", reason="model_not_found"), "model_not_found", False),
        (grpc(code="UNAVAILABLE", reason="stopping"), "stopping", True),
        (grpc(left=True), "cancelled", False),
        (mcp(reason="empty_input"), "empty_input", False),
        (mcp(reason="queue_full"), "queue_full", False),
        (mcp(reason="unknown_tool"), "unknown_tool", False),
        (mcp(reason="inference_failed"), "inference_failed", True),
        (mcp(), "ERROR", True),
        (mcp(left=True), "cancelled", False),
    ],
)
def test_how_it_ended(exchange: Exchange, why: str, fault: bool) -> None:
    assert (error_of(exchange), is_fault(exchange)) == (why, fault)
    assert end_of(exchange).get("error.type", "") == why


def test_the_same_errors_are_faults_over_mcp_and_grpc() -> None:
    """Where the one has only words for them and the other codes."""
    for kind, row in TABLE.items():
        if kind is NerveError or kind.reason == "model_unavailable":  # roots, never raised
            continue
        assert is_fault(mcp(reason=kind.reason)) == is_fault(grpc(code=row.grpc)), kind


def test_numbers_of_grpcs_codes() -> None:
    assert end_of(grpc(code="UNAUTHENTICATED"))["rpc.grpc.status_code"] == 16
    assert end_of(grpc(left=True))["rpc.grpc.status_code"] == 1
    assert "rpc.grpc.status_code" not in end_of(grpc())


def test_a_clock_that_is_set_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for that, times come one after the other, whatever the two clocks say of each other."""
    now = 1_000 * STEP_NS
    monkeypatch.setattr("time.time_ns", lambda: now)
    monkeypatch.setattr("time.monotonic_ns", lambda: 0)
    clock = Clock()
    now += STEP_NS
    clock.follow()
    assert clock.at(0.0) == 1_000 * STEP_NS
    now += 1
    clock.follow()
    assert clock.at(1e-9) == 1_001 * STEP_NS + 2


def test_nothing_is_traced_before_the_start() -> None:
    tracing = Tracing(ObserveSettings(enable_otel=True))
    exchange = http()
    tracing.began(exchange, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    tracing.finished(exchange)
    assert (exchange.trace, exchange.traceparent) == (None, "")


@pytest.fixture
async def tracing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tracing]:
    """Where nothing is sent."""
    monkeypatch.setattr("nerve.tracing.tracing.FLUSH_S", 0.01)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    tracing = Tracing(ObserveSettings(otel_exporter_url="http://127.0.0.1:9"))
    tracing.start()
    yield tracing
    await tracing.aclose()


async def test_a_request_of_many_runs_has_so_many_spans(tracing: Tracing) -> None:
    exchange = http()
    tracing.began(exchange, {})
    span = exchange.trace
    for number in range(MAX_STAGES + 7):
        exchange.stage("infer", number, number + 1)
    exchange.ended = exchange.began + 1
    tracing.finished(exchange)
    assert span.attributes["nerve.stages_left_out"] == 7
    assert span.end_time - span.start_time == pytest.approx(1e9, abs=1000)


async def test_a_batch_is_part_of_a_request_that_waits_for_it(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader may have left meanwhile: a span that has ended has no children that end later."""
    first, second, third = (http() for _ in range(3))
    for exchange in (first, second, third):
        tracing.began(exchange, {})
    spans = [exchange.trace for exchange in (first, second, third)]
    run = TracedRun(first.began, 1.0, 3, 9, 9, "cpu", tuple(spans))
    ended: list[ReadableSpan] = []
    monkeypatch.setattr(tracing._processor, "on_end", ended.append)
    first.left, first.ended = True, first.began + 0.5
    tracing.finished(first)
    for exchange in (third, second):
        exchange.stage("infer", run.began, run.began + run.took_s, run=run)
        exchange.ended = exchange.began + 2
        tracing.finished(exchange)
    (batch,) = [span for span in ended if span.name == "batch"]
    assert batch.parent == spans[1].get_span_context()
    linked = {link.context.span_id for link in batch.links}
    assert linked == {spans[0].get_span_context().span_id, spans[2].get_span_context().span_id}
    (infer,) = [span for span in ended if span.name == "infer"]
    assert infer.parent == spans[2].get_span_context()
    assert [link.context for link in infer.links] == [batch.get_span_context()]


HEADERS = [
    "",
    "00",
    "00-" + "0" * 32 + "-" + "2" * 16 + "-01",
    "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
    "00-" + "1" * 32 + "-" + "2" * 16 + "-01-more",
    "ff-" + "1" * 32 + "-" + "2" * 16 + "-01",
    "00-" + "G" * 32 + "-" + "2" * 16 + "-01",
    "x" * 100_000,
    "\x00\ud800ü\u2028",
]


@pytest.mark.parametrize("sent", HEADERS, ids=lambda sent: repr(sent)[:30])
async def test_what_is_no_context_begins_a_trace(tracing: Tracing, sent: str) -> None:
    exchange = http()
    tracing.began(exchange, {"traceparent": sent, "tracestate": sent})
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", exchange.traceparent)
    assert "1" * 32 not in exchange.traceparent


async def test_a_state_that_is_none_is_dropped(tracing: Tracing) -> None:
    """The trace goes on; what could not be sent on with a span would cost all that go with it."""
    for state in ("a=\ud800", "x" * 100_000, "=,=,=", "a=b,\x00=c"):
        exchange = http()
        tracing.began(
            exchange, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": state}
        )
        about = exchange.trace.get_span_context()
        assert f"{about.trace_id:032x}" == "1" * 32
        assert about.trace_state.to_header().isascii()
        assert len(about.trace_state.to_header()) < 1000


@pytest.mark.parametrize("package", ["opentelemetry.sdk", "opentelemetry.exporter.otlp"])
def test_without_the_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [each for each in sys.modules if each.startswith((package, "nerve.tracing."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=re.escape("pip install 'nerve-server[otel]'")):
        new_tracing(ObserveSettings(enable_otel=True))
