"""Our own histograms are those of the client library, only quicker."""

from __future__ import annotations

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram

from nerve.metrics.buckets import ROWS, SCORES, SECONDS, SHORT_SECONDS, TOKENS
from nerve.metrics.tally import MANY, Bins


@pytest.mark.parametrize("bounds", [ROWS, SCORES, SECONDS, SHORT_SECONDS, TOKENS])
@pytest.mark.parametrize("at_once", [1, 3, MANY, 200])
def test_counts_are_those_of_the_library(bounds: tuple[float, ...], at_once: int) -> None:
    """Values on a bound included, in whatever portions they come."""
    chance = random.Random(7)
    values = [*bounds, 0.0, 2 * bounds[-1]]
    values += [chance.uniform(0, 1.5 * bounds[-1]) for _ in range(400)]
    registry = CollectorRegistry()
    expected, bins = Histogram("x", "x", buckets=bounds, registry=registry), Bins(bounds)
    for value in values:
        expected.observe(value)
    for start in range(0, len(values), at_once):
        bins.observe(values[start : start + at_once])
    buckets, total = bins.read()
    for name, count in buckets:
        assert registry.get_sample_value("x_bucket", {"le": name}) == count
    assert len(buckets) == len(bounds) + 1
    assert total == pytest.approx(registry.get_sample_value("x_sum"))


@pytest.mark.parametrize("bounds", [ROWS, SCORES, SECONDS, SHORT_SECONDS, TOKENS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
