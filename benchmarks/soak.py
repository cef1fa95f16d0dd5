"""Memory under a long load, and what the daemon takes when it is idle again.

    python benchmarks/soak.py [--requests 100000] [--bundled 5000]

Needs wrk (apt-get install wrk). Sends the benchmarks' texts first to a tiny model, so that many
requests pass in little time, then to the bundled one; RSS after a warm-up of both is compared with
RSS at the end. Exit code 1 if it grew by 5 % or more, a request failed, or the idle daemon takes
1 % of a core or more. About 5 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import ClientSession
from counters import moment
from measured_daemon import MeasuredDaemon, measured_daemon
from random_bert import BUNDLED, CACHE
from sample import load_texts, write_bodies
from wrk import load, require_wrk

TINY: Final = Path(__file__).parents[1] / "tests" / "models" / "bert"
MOST_GROWTH: Final = 0.05
MOST_IDLE_PERCENT: Final = 1.0
WARM_UP: Final = 0.1
"""Part of the requests after which memory is first weighed; each text has been there by then, as a
batch larger than any before takes memory that is kept."""
CONCURRENCY: Final = 64
CALM_S: Final = 3.0
IDLE_S: Final = 20.0
LOOK_S: Final = 2.0
MOST_TOKENS: Final = 126
"""What the tiny model takes; longer texts are cut, which is work like any other."""


@dataclass(frozen=True, slots=True)
class Part:
    """So many requests to a model."""

    model: str
    requests: int


async def run(parts: list[Part], scratch: Path) -> list[str]:
    """Measure; returns the claims that do not hold."""
    texts, bodies = load_texts(), scratch / "bodies"
    write_bodies(texts, bodies)
    repository = scratch / "repository"
    for part, folder in zip(parts, (TINY, BUNDLED), strict=True):
        version = repository / part.model / "1"
        version.mkdir(parents=True)
        for file in folder.iterdir():
            (version / file.name).hardlink_to(file)
    problems: list[str] = []
    log = scratch / "daemon.log"
    served = measured_daemon(repository, "--exit-on-error", log=log)
    async with served as daemon, ClientSession() as http:
        for part in parts:
            warm = Part(part.model, max(len(texts), round(part.requests * WARM_UP)))
            problems += await _send(daemon, http, warm, bodies)
        await asyncio.sleep(CALM_S)
        before = daemon.memory().rss_bytes
        print(f"after warm-up: RSS {before / 2**20:.1f} MiB")
        for part in parts:
            problems += await _send(daemon, http, part, bodies)
        await asyncio.sleep(CALM_S)
        problems += await _idle(daemon)
        after = daemon.memory().rss_bytes
        growth = after / before - 1
        print(f"at the end: RSS {after / 2**20:.1f} MiB, {growth:+.2%}")
        if growth >= MOST_GROWTH:
            problems.append(f"memory grew by {growth:.1%}")
    return problems


async def _send(daemon: MeasuredDaemon, http: ClientSession, part: Part, bodies: Path) -> list[str]:
    """Send until the model has run so many texts."""
    url = f"{daemon.url}/v1/models/{part.model}/predict_tokens"
    first = await moment(http, daemon, part.model)
    began = time.perf_counter()
    async with load(url, bodies, concurrency=CONCURRENCY) as sending:
        while True:
            await asyncio.sleep(LOOK_S)
            done = (await moment(http, daemon, part.model)).rows - first.rows
            if done >= part.requests:
                break
            if time.perf_counter() - began > 60 and done < part.requests / 1000:
                raise RuntimeError(f"hardly an answer in a minute:\n{daemon.last_lines()}")
        sent = await sending.finish()
    print(
        f"{part.model}: {sent.requests} requests, {sent.requests / sent.duration_s:.0f}/s, "
        f"{sent.failed} failed; RSS {daemon.memory().rss_bytes / 2**20:.1f} MiB",
        flush=True,
    )
    return [f"{sent.failed} requests to {part.model} failed"] if sent.failed else []


async def _idle(daemon: MeasuredDaemon) -> list[str]:
    before, began = daemon.cpu_s(), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    percent = (daemon.cpu_s() - before) / (time.perf_counter() - began) * 100
    print(f"idle for {IDLE_S:g} s: {percent:.2f} % of a core")
    return [f"idle CPU is {percent:.2f} %"] if percent >= MOST_IDLE_PERCENT else []


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000, help="to the tiny model")
    parser.add_argument("--bundled", type=int, default=5_000, help="to the bundled model")
    asked = parser.parse_args()
    require_wrk()
    CACHE.mkdir(exist_ok=True)
    parts = [Part("tiny", asked.requests), Part("bundled", asked.bundled)]
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as scratch, runner:
        problems = runner.run(run(parts, Path(scratch)))
    for problem in problems:
        print(f"FAILS: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
