"""What becomes of a transform's requests and processes is counted, on a real one."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fake_models import until
from nerve.errors import ModelLoadFailed, TransformFailed
from nerve.metrics.transforms import TransformMetrics
from nerve.transforming.host import TransformHost
from nerve.types import Limits

SCRIPT = """
function Postprocess(arr)
    if arr:shape()[2] == 2 then error("no pairs") end
    return arr
end
"""
LIMITS = Limits(10_000_000, 5_000_000, 64 * 1024 * 1024)


async def opened(metrics: TransformMetrics, script: str = SCRIPT) -> TransformHost:
    return await TransformHost.open(
        "ner",
        script,
        libs=None,
        limits=LIMITS,
        labels=3,
        validate=True,
        max_waiting=4,
        watcher=metrics.of("ner"),
    )


async def test_requests_failures_and_restarts() -> None:
    """A process that was killed while nobody asked costs no request; series go with the last copy."""
    registry = CollectorRegistry()
    metrics = TransformMetrics(registry)

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"nerve_transform_{name}", {"model": "ner"} | more)

    host, other = await opened(metrics), metrics.of("ner")
    try:
        assert (value("seconds_count"), value("restarts_total")) == (
            0,
            0,
        )  # the trial is no request
        rows = [np.zeros((4, 3), dtype=np.float32)]
        await host.apply(rows, deadline=None)
        with pytest.raises(TransformFailed):
            await host.apply([np.zeros((2, 3), dtype=np.float32)], deadline=None)
        assert value("seconds_count") == 1
        assert value("failures_total", reason="transform_failed") == 1
        before = host.pid
        os.kill(before, signal.SIGKILL)
        await until(lambda: value("restarts_total") == 1)
        assert host.pid not in (0, before)
        await host.apply(rows, deadline=None)
        assert value("seconds_count") == 2
        assert value("failures_total", reason="transform_failed") == 1
    finally:
        await host.aclose()
    assert value("seconds_count") == 2  # of the other copy, too
    other.close()
    assert value("seconds_count") is value("restarts_total") is None


async def test_one_that_cannot_be_loaded_leaves_nothing() -> None:
    registry = CollectorRegistry()
    with pytest.raises(ModelLoadFailed):
        await opened(TransformMetrics(registry), "this is no Lua")
    assert registry.get_sample_value("nerve_transform_seconds_count", {"model": "ner"}) is None
