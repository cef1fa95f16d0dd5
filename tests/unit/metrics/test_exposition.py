"""The page: its formats, and what it costs to ask."""

from __future__ import annotations

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from nerve.metrics.all import Metrics
from nerve.metrics.exposition import Exposition, accepts_gzip


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", False), ("gzip", True), ("br, gzip", True), ("GZIP;q=0.5", True), ("*", True),
        ("gzip;q=0", False), ("gzip; q=0.0", False), ("*;q=0", False), ("*, gzip;q=0", False),
        ("identity", False), ("x-gzip", False),
    ],
)  # fmt: skip
def test_gzip_is_sent_to_those_who_take_it(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


async def test_formats() -> None:
    """Both parse, by the parsers of their own, and say the same; counters have no birthday."""
    registry = CollectorRegistry()
    page = Metrics(registry, compat=["triton", "tei"]).exposition.page
    text, opened = await page("", ""), await page(OPEN, "")
    assert text.content_type.startswith("text/plain; version=0.0.4")
    assert opened.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert opened.body.endswith(b"# EOF\n")
    assert not text.gzipped
    assert b"_created" not in text.body + opened.body
    in_text = {family.name for family in text_families(text.body.decode())}
    parsed = open_families(opened.body.decode())  # type: ignore[no-untyped-call]
    in_open = {family.name for family in parsed}
    assert in_text == in_open
    assert b"# TYPE te_request_count counter" in text.body
    assert b"# TYPE te_request_count unknown" in opened.body


async def test_gzip() -> None:
    registry = CollectorRegistry()
    page = Metrics(registry).exposition.page
    packed = await page("", "gzip")
    assert packed.gzipped
    assert b"nerve_build_info" in gzip.decompress(packed.body)


async def test_a_small_page_is_not_packed() -> None:
    registry = CollectorRegistry()
    Counter("x", "x", registry=registry)
    assert not (await Exposition(registry).page("", "gzip")).gzipped


async def test_what_only_the_loop_may_read_is_read_before() -> None:
    """Each time."""
    registry, ready = CollectorRegistry(), [False]
    metrics = Metrics(registry)
    metrics.ask(ready=lambda: ready[0], connections=lambda: 3, totals=list)
    assert b"\nnerve_ready 0.0\n" in (await metrics.exposition.page("", "")).body
    ready[0] = True
    body = (await metrics.exposition.page("", "")).body
    assert b"\nnerve_ready 1.0\n" in body
    assert b'\nnerve_connections{protocol="http"} 3.0\n' in body
