"""wrk, the load generator, as the benchmarks use it: one thread, keep-alive, every text in turn."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_suffix(".lua")
TIMEOUT_S: Final = 120
MOST_S: Final = 3600
"""wrk ends then by itself, which no measurement should wait for."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What wrk saw. `bad_status` counts answers of 400 and more, `broken` connections; `cores` is
    the processor time that wrk itself took, a second."""

    requests: int
    duration_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    bad_status: int
    broken: int
    timeout: int
    cores: float

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return self.bad_status + self.broken + self.timeout


def require_wrk() -> str:
    """Path of wrk; ends the program with advice if there is none."""
    found = shutil.which("wrk")
    if found is None:
        sys.exit("this benchmark needs wrk, a load generator: apt-get install wrk")
    return found


class Load:
    """Requests that are kept in flight. Use `load`; inside it `finish` tells what came of them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self._used = process, _children_cpu_s()

    async def finish(self) -> Sent:
        """Stop, and say what happened since the beginning.

        Raises:
            RuntimeError: wrk failed, or had ended before.
        """
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        output = (await self._process.communicate())[0].decode()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if self._process.returncode != 0 or not lines:
            raise RuntimeError(f"wrk ended with {self._process.returncode}:\n{output}")
        told = json.loads(lines[-1])
        duration_s = told["duration_us"] / 1e6
        if duration_s > MOST_S - 1:
            raise RuntimeError(f"wrk ended by itself after {duration_s:.0f} s")
        return Sent(
            requests=told["requests"],
            duration_s=duration_s,
            mean_ms=told["mean_us"] / 1e3,
            p50_ms=told["p50_us"] / 1e3,
            p99_ms=told["p99_us"] / 1e3,
            bad_status=told["bad_status"],
            broken=told["broken"],
            timeout=told["timeout"],
            cores=(_children_cpu_s() - self._used) / duration_s,
        )


@asynccontextmanager
async def load(url: str, bodies: Path, *, concurrency: int) -> AsyncIterator[Load]:
    """Keep `concurrency` requests in flight, until `finish` or the end of the block.

    Args:
        url: of POST predict_tokens.
        bodies: file with a body a line.
        concurrency: connections, each with one request at a time.
    """
    # wrk divides its connections among threads; more than one would take cores from the server.
    command = [require_wrk(), "-t1", f"-c{concurrency}", f"-d{MOST_S}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT), url, "--", str(bodies)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield Load(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _children_cpu_s() -> float:
    """Of children that have ended; while wrk runs, no other child of ours ends."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
