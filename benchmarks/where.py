"""Where the server's processor time outside the runs goes, by a sampling profiler.

    python benchmarks/where.py [--concurrency 64] [--seconds 20]

Needs wrk (apt-get install wrk) and py-spy (pip install py-spy), which must be allowed to look into
another process (root, or kernel.yama.ptrace_scope 0). The bundled model under load; samples of
the threads that do not run the model, by what they do, and in milliseconds a text of what the
kernel counts for the event loop's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import ClientSession
from counters import window
from measured_daemon import MeasuredDaemon, measured_daemon
from random_bert import BUNDLED, CACHE
from sample import load_texts, write_bodies
from throughput import FLAGS, SCHEDULERS, make_repository
from wrk import load

SAMPLES_A_SECOND: Final = 200
RAMP_S: Final = 3.0
FRAME: Final = re.compile(r"^(?P<name>.*) \((?P<file>[^():]+)(?::\d+)?\)$")
STAGES: Final = (
    ("nerve/pipeline/tokenizer", "tokenize"),
    ("nerve/pipeline/windows", "tokenize"),
    ("nerve/pipeline/text_side", "tokenize: around it"),
    ("nerve/pipeline/", "decode"),
    ("nerve/engine/", "batcher, hand over to the threads of the runs"),
    ("nerve/frontend/http/body", "read and check the body"),
    ("nerve/frontend/", "dialect: from body to answer"),
    ("nerve/metrics", "metrics"),
    ("prometheus_client/", "metrics"),
    ("nerve/app", "event loop: uvloop, system calls, waiting for a core"),
    ("nerve/cli", "event loop: uvloop, system calls, waiting for a core"),
    ("nerve/", "service"),
    ("aiohttp/http_writer", "send the answer"),
    ("aiohttp/", "HTTP: parse, route, make headers"),
    ("multidict/", "HTTP: parse, route, make headers"),
    ("yarl/", "HTTP: parse, route, make headers"),
)
"""Beginnings of files, and what code in them does; the innermost frame that has a row decides."""


def stage(stack: list[str]) -> str:
    """What a thread was doing; `stack` from the outermost frame to the innermost."""
    for frame in reversed(stack):
        parts = FRAME.match(frame)
        if parts is None:
            continue
        for prefix, name in STAGES:
            if parts["file"].startswith(prefix):
                return name
    return "other"


def count(raw: str, model: str) -> tuple[Counter[str], Counter[str]]:
    """Samples of py-spy's raw format: of the main thread by stage, and of the others by thread."""
    main: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if "MainThread" in thread:
            main[stage(frames)] += int(samples)
        elif f"nerve-{model}" in thread:
            others["runs"] += int(samples)
        else:
            others["other threads: long texts and large answers"] += int(samples)
    return main, others


async def sample(daemon: MeasuredDaemon, file: Path, *, seconds: int) -> str:
    """Let py-spy watch the daemon; its raw output."""
    command = ["py-spy", "record", "--pid", str(daemon.process.pid), "--duration", str(seconds)]
    command += ["--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--threads", "--nonblocking"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--output",
        str(file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    if process.returncode != 0:
        raise RuntimeError(f"py-spy ended with {process.returncode}:\n{output}")
    return await asyncio.to_thread(file.read_text, encoding="utf-8")


async def run(scratch: Path, *, concurrency: int, seconds: int) -> None:
    """Measure the time without the profiler, then the shares with it, and print both."""
    bodies, model = scratch / "bodies", SCHEDULERS[0]
    write_bodies(load_texts(), bodies)
    repository = make_repository(scratch / "repository", BUNDLED)
    served = measured_daemon(repository, *FLAGS, log=scratch / "log")
    async with served as daemon, ClientSession() as http:
        url = f"{daemon.url}/v1/models/{model}/predict_tokens"
        async with load(url, bodies, concurrency=concurrency):
            await asyncio.sleep(RAMP_S)
            seen = await window(http, daemon, model, seconds=seconds / 2)
            raw = await sample(daemon, scratch / "raw", seconds=seconds)
    main, others = count(raw, model)
    print(
        f"{concurrency} callers: {seen.texts_per_s:.0f} texts/s; CPU a text: event loop "
        f"{seen.loop_cpu_ms:.2f} ms, other threads {seen.other_cpu_ms:.2f} ms\n"
    )
    print("| event loop | share | ms a text |\n| --- | ---: | ---: |")
    for name, samples in main.most_common():
        share = samples / main.total()
        print(f"| {name} | {share:.0%} | {share * seen.loop_cpu_ms:.3f} |")
    print("\nsamples of the other threads: " + ", ".join(f"{n} {k}" for k, n in others.items()))


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=20)
    asked = parser.parse_args()
    if shutil.which("py-spy") is None:
        sys.exit("this benchmark needs py-spy, a profiler: pip install py-spy")
    CACHE.mkdir(exist_ok=True)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as scratch, runner:
        work = run(Path(scratch), concurrency=asked.concurrency, seconds=asked.seconds)
        runner.run(work)


if __name__ == "__main__":
    main()
