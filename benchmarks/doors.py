"""The Open Inference Protocol's two transports under the same load of the same client, perf_analyzer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ClientSession
from counters import Window, window
from measured_daemon import MeasuredDaemon
from perf_analyzer import PerfAnalyzer

DOORS: Final = ("http", "grpc")
CONCURRENCY: Final = 64
MOST_MS: Final = 3_600_000
"""A measurement of perf_analyzer, which is ended long before: the server's own counters tell."""


@dataclass(frozen=True, slots=True)
class Door:
    """What the server counted under load over `protocol`."""

    protocol: str
    concurrency: int
    server: Window


def write_input(texts: Sequence[str], path: Path) -> Path:
    """The texts as perf_analyzer takes them, one a request."""
    data = [{"TEXT": [text]} for text in texts]
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return path


async def measure(
    tool: PerfAnalyzer,
    daemon: MeasuredDaemon,
    http: ClientSession,
    *,
    model: str,
    data: Path,
    protocol: str,
    concurrency: int,
    ramp_s: float,
    seconds: float,
) -> Door:
    """Keep `concurrency` requests in flight, and watch the model after `ramp_s`.

    Raises:
        RuntimeError: nothing was run, or perf_analyzer ended by itself.
    """
    address = daemon.url.removeprefix("http://") if protocol == "http" else daemon.grpc
    async with _load(tool, model, address, protocol, data, concurrency):
        await asyncio.sleep(ramp_s)
        seen = await window(http, daemon, model, seconds=seconds)
    return Door(protocol, concurrency, seen)


@asynccontextmanager
async def _load(
    tool: PerfAnalyzer, model: str, address: str, protocol: str, data: Path, concurrency: int
) -> AsyncIterator[None]:
    command = [str(tool.program), "-m", model, "-u", address, "-i", protocol, "--async"]
    command += ["--input-data", str(data), "--concurrency-range", str(concurrency)]
    command += ["--measurement-interval", str(MOST_MS), "--max-threads", "1"]
    process = await asyncio.create_subprocess_exec(
        *command,
        env=tool.environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
        if process.returncode is not None:
            raise RuntimeError(f"perf_analyzer ended by itself with {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
