"""The process: memory, files, CPU, garbage collection; and how late the event loop is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

EVERY_S: Final = 0.5
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


def register_process(registry: CollectorRegistry) -> None:
    """The client library's own: process_*, python_gc_*, python_info; looked up when asked for."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


class LoopLag:
    """How much later than it should the event loop gets round to something. `start`, then `aclose`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Histogram(
            "nerve_event_loop_lag_seconds",
            "How late the event loop was for a timer, looked at twice a second",
            buckets=LAGS,
            registry=registry,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._task = asyncio.create_task(self._watch(), name="loop-lag")

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._lag.observe(max(0.0, clock() - due))

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
