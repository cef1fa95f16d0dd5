"""Families as JSON: names and types of the page, some of them, and what JSON cannot hold."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from nerve.errors import InvalidField
from nerve.metrics.all import Metrics
from nerve.metrics.bare import typed
from nerve.metrics.families import Families


class Watched(Collector):
    """Tells how often it was looked at."""

    def __init__(self, name: str) -> None:
        self.name, self.looks = name, 0

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One look."""
        self.looks += 1
        yield GaugeMetricFamily(self.name, "Looks", value=self.looks)


def test_all_are_as_the_page_has_them() -> None:
    """Also under other servers' names."""
    registry = CollectorRegistry(auto_describe=True)
    Metrics(registry, compat=["triton", "tei"])
    page = typed(generate_latest(registry)).decode()
    told = dict(line.split(" ")[2:4] for line in page.splitlines() if line.startswith("# TYPE "))
    assert told["nv_inference_count"] == "counter"
    families = Families(registry).collect([])
    assert {each["name"]: each["type"] for each in families} == told


def test_only_what_is_wanted_is_looked_at() -> None:
    """Once the names are known, which they are after the first request."""
    registry = CollectorRegistry(auto_describe=True)
    one, other = Watched("one"), Watched("other")
    registry.register(one)
    registry.register(other)
    families = Families(registry)
    families.collect(["one"])
    before = one.looks, other.looks
    (family,) = families.collect(["one"])
    assert family["samples"] == [{"name": "one", "labels": {}, "value": before[0] + 1}]
    assert (one.looks, other.looks) == (before[0] + 1, before[1])


def test_a_family_that_came_later_is_found() -> None:
    registry = CollectorRegistry(auto_describe=True)
    families = Families(registry)
    with pytest.raises(InvalidField, match="'late_total' is no metric of this server; see GET"):
        families.collect(["late_total"])
    late = Counter("late", "Late", ["who"], registry=registry)
    assert families.collect(["late_total"]) == [
        {"name": "late_total", "type": "counter", "help": "Late", "samples": []}
    ]
    late.labels("me").inc(2)
    (family,) = families.collect(["late_total"])
    assert family["samples"] == [{"name": "late_total", "labels": {"who": "me"}, "value": 2.0}]


def test_names_that_begin_alike_are_not_mixed_up() -> None:
    """A histogram's samples are its own."""
    registry = CollectorRegistry(auto_describe=True)
    Histogram("a", "A", buckets=(1,), registry=registry).observe(0.5)
    Gauge("a_bytes", "Bytes", registry=registry).set(3)
    Info("a_build", "Build", registry=registry).info({"v": "1"})
    families = Families(registry)
    (histogram,) = families.collect(["a"])
    assert histogram["samples"] == [
        {"name": "a_bucket", "labels": {"le": "1.0"}, "value": 1.0},
        {"name": "a_bucket", "labels": {"le": "+Inf"}, "value": 1.0},
        {"name": "a_count", "labels": {}, "value": 1.0},
        {"name": "a_sum", "labels": {}, "value": 0.5},
    ]
    assert [each["name"] for each in families.collect(["a_build_info", "a_bytes"])] == [
        "a_build_info",
        "a_bytes",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(float("nan"), "NaN"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (1.5, 1.5)],
)
def test_what_json_has_no_number_for(value: float, expected: float | str) -> None:
    registry = CollectorRegistry(auto_describe=True)
    Gauge("odd", "Odd", registry=registry).set(value)
    (family,) = Families(registry).collect(["odd"])
    assert family["samples"] == [{"name": "odd", "labels": {}, "value": expected}]
