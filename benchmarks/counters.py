"""What a daemon counts, and the processor time of its threads, between two moments under load."""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ClientSession
from machine import busy_s
from measured_daemon import MeasuredDaemon

SERIES: Final = re.compile(r'^(nerve_\w+)\{.*?model="([^"]+)".*?\} ([0-9.e+]+)$', re.MULTILINE)
POLL_S: Final = 0.03
EDGE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Totals of one model, and of the daemon's processor time, at `at` (monotonic seconds)."""

    at: float
    batches: float
    rows: float
    tokens: float
    padded_tokens: float
    run_s: float
    loop_cpu_s: float
    other_cpu_s: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """Rates between two moments that both are the end of a batch.

    `run_ms` is the wall time of a run. The CPU figures are a text: of the thread of the event loop,
    and of all other threads (the runs, texts too long for the loop). `rest_cores` is what the
    rest of the machine used, a second, the load generator counted.
    """

    seconds: float
    texts_per_s: float
    tokens_per_s: float
    padding_waste: float
    batch_rows: float
    run_ms: float
    loop_cpu_ms: float
    other_cpu_ms: float
    rest_cores: float


async def moment(http: ClientSession, daemon: MeasuredDaemon, model: str) -> Moment:
    """The totals now."""
    async with http.get(f"{daemon.url}/metrics") as response:
        response.raise_for_status()
        text = await response.text()
    now = time.perf_counter()
    totals = {name: float(value) for name, of, value in SERIES.findall(text) if of == model}
    loop_s, other_s = thread_cpu_s(daemon.process.pid)
    return Moment(
        at=now,
        batches=totals.get("nerve_batch_rows_count", 0.0),
        rows=totals.get("nerve_batch_rows_sum", 0.0),
        tokens=totals.get("nerve_tokens_total", 0.0),
        padded_tokens=totals.get("nerve_padded_tokens_total", 0.0),
        run_s=totals.get("nerve_run_seconds_sum", 0.0),
        loop_cpu_s=loop_s,
        other_cpu_s=other_s,
        busy_s=busy_s(),
    )


async def window(
    http: ClientSession, daemon: MeasuredDaemon, model: str, *, seconds: float
) -> Window:
    """Watch a model under load for at least `seconds`.

    Batches are counted when they end, and one can take a second; so the window begins and ends
    with the end of a batch, or whole batches would be counted that ran partly outside of it.

    Raises:
        RuntimeError: the model ran nothing.
    """
    first = await _end_of_a_batch(http, daemon, model)
    await asyncio.sleep(seconds)
    last = await _end_of_a_batch(http, daemon, model)
    took, rows = last.at - first.at, last.rows - first.rows
    padded = last.padded_tokens - first.padded_tokens
    tokens = last.tokens - first.tokens
    loop_s, other_s = last.loop_cpu_s - first.loop_cpu_s, last.other_cpu_s - first.other_cpu_s
    return Window(
        seconds=took,
        texts_per_s=rows / took,
        tokens_per_s=tokens / took,
        padding_waste=(padded - tokens) / padded,
        batch_rows=rows / (last.batches - first.batches),
        run_ms=(last.run_s - first.run_s) / (last.batches - first.batches) * 1e3,
        loop_cpu_ms=loop_s / rows * 1e3,
        other_cpu_ms=other_s / rows * 1e3,
        rest_cores=(last.busy_s - first.busy_s - loop_s - other_s) / took,
    )


async def _end_of_a_batch(http: ClientSession, daemon: MeasuredDaemon, model: str) -> Moment:
    before = await moment(http, daemon, model)
    give_up = before.at + EDGE_S
    while True:
        await asyncio.sleep(POLL_S)
        now = await moment(http, daemon, model)
        if now.batches > before.batches:
            return now
        if now.at > give_up:
            raise RuntimeError(f"{model} ended no batch in {EDGE_S:g} s:\n{daemon.last_lines()}")


def thread_cpu_s(pid: int) -> tuple[float, float]:
    """Processor seconds so far of a process's main thread, where the event loop runs, and of all
    its other threads together; of those that still live."""
    main = others = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # a thread that has just ended
            continue
        ticks = sum(map(int, stat.rpartition(")")[2].split()[11:13]))
        if task.name == str(pid):
            main = ticks
        else:
            others += ticks
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return main * tick_s, others * tick_s
