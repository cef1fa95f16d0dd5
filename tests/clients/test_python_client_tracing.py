"""The caller's trace goes with the requests of clients/python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from nerve_client import AsyncClient, Client
from opentelemetry import trace

from clients.python_support import Seen, little_server

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CARRIED = f"00-{TRACE}-{SPAN}-01"
PROTOCOLS = ("http", "grpc")


@contextmanager
def traced() -> Iterator[None]:
    """Within a span of the caller's."""
    about = trace.SpanContext(
        int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_flags=trace.TraceFlags(1)
    )
    with trace.use_span(trace.NonRecordingSpan(about)):
        yield


def carried(seen: Seen) -> list[str | None]:
    return [each.get("traceparent") for each in seen.headers]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_context_goes_with_a_request(protocol: str) -> None:
    """With that of a span, and a stream with that in which it begins; outside of any, nothing."""
    with little_server(protocol) as (url, seen), Client(url) as client:
        client.extract("Ada")
        with traced():
            client.extract("Ada")
            list(client.extract_many(["Ada"]))
    assert carried(seen) == [None, CARRIED, CARRIED]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_with_the_async_client(protocol: str) -> None:
    with little_server(protocol) as (url, seen):
        async with AsyncClient(url) as client:
            await client.extract("Ada")
            with traced():
                await client.extract("Ada")
                assert [each async for each in client.extract_many(["Ada"])]
    assert carried(seen) == [None, CARRIED, CARRIED]
