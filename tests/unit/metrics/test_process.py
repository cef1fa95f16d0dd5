"""The event loop's lag."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from fake_models import until
from nerve.metrics import process
from nerve.metrics.process import LoopLag


async def test_a_loop_that_was_held_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """By as much as it was held."""
    monkeypatch.setattr(process, "EVERY_S", 0.01)
    asyncio.get_running_loop().slow_callback_duration = 60.0  # it is meant
    registry = CollectorRegistry()
    lag = LoopLag(registry)
    name = "nerve_event_loop_lag_seconds"
    lag.start()
    try:
        await asyncio.sleep(0)
        time.sleep(0.12)
        await until(lambda: registry.get_sample_value(f"{name}_count"))
    finally:
        await lag.aclose()
    held = registry.get_sample_value(f"{name}_count") or 0
    below = registry.get_sample_value(f"{name}_bucket", {"le": "0.1"}) or 0
    assert held - below >= 1


async def test_it_can_be_closed_before_it_is_started() -> None:
    await LoopLag(CollectorRegistry()).aclose()
