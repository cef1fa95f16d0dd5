"""The real daemon as a benchmark sees it: started, asked over HTTP, weighed through /proc."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_S = 300.0
STOP_S = 60.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory. A page that several processes share counts in full in each RSS, and by
    its share in PSS."""

    rss_bytes: int
    pss_bytes: int
    children: int
    children_rss_bytes: int
    children_pss_bytes: int

    def __str__(self) -> str:
        return (
            f"RSS {self.rss_bytes / 2**20:.1f} MiB, PSS {self.pss_bytes / 2**20:.1f} MiB; "
            f"{self.children} child processes: RSS {self.children_rss_bytes / 2**20:.1f} MiB, "
            f"PSS {self.children_pss_bytes / 2**20:.1f} MiB"
        )


@dataclass(slots=True)
class MeasuredDaemon:
    """A running `nerve serve`. `url` is its HTTP root, `grpc` host and port if it listens for that;
    times are seconds since its start."""

    process: asyncio.subprocess.Process
    log: Path
    url: str = ""
    grpc: str = ""
    listening_s: float = 0.0
    ready_s: float = 0.0
    output: list[str] = field(default_factory=list)

    def memory(self) -> Memory:
        """What it and its children hold now."""
        rss, pss = _resident(self.process.pid)
        children = descendants(self.process.pid)
        held = [_resident(child) for child in children]
        return Memory(
            rss, pss, len(children), sum(each[0] for each in held), sum(each[1] for each in held)
        )

    def cpu_s(self) -> float:
        """Processor time of it and its children so far, ended ones included."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        return sum(_ticks(pid) for pid in pids) / os.sysconf("SC_CLK_TCK")

    def last_lines(self, count: int = 20) -> str:
        """The end of its log, for a report of a failure."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-count:])


def descendants(pid: int) -> list[int]:
    """Process ids of all children, and theirs. Empty if the process has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text(encoding="ascii").split()
        except OSError:  # a thread that has just ended
            continue
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def _resident(pid: int) -> tuple[int, int]:
    """RSS and PSS in bytes; zeros if the process has ended."""
    sizes = {"Rss": 0, "Pss": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) * 1024
    return sizes["Rss"], sizes["Pss"]


def _ticks(pid: int) -> int:
    """Clock ticks of a process and of its children that have been waited for."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return sum(map(int, line.rpartition(")")[2].split()[11:15]))


@asynccontextmanager
async def measured_daemon(
    repository: Path, *flags: str, log: Path, grpc: bool = False
) -> AsyncIterator[MeasuredDaemon]:
    """`python -m nerve serve` from the moment it says that it is ready to the end of the block.

    Args:
        repository: folder of models.
        flags: further arguments of `nerve serve`.
        log: file that its stderr is added to.
        grpc: whether it listens for gRPC.
    Raises:
        RuntimeError: it ended by itself, or not with 0 after SIGTERM.
    """
    command = [sys.executable, "-m", "nerve", "serve", "--http-hostname", "127.0.0.1"]
    listening = ["--grpc-hostname", "127.0.0.1", "--grpc-port", "0"] if grpc else ["--disable-grpc"]
    command += ["--http-port", "0", *listening, *flags, str(repository)]
    began = time.perf_counter()
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=stderr
        )
    daemon = MeasuredDaemon(process, log)
    ready = asyncio.Event()
    reading = asyncio.create_task(_read(daemon, began, ready))
    try:
        started = asyncio.create_task(ready.wait())
        await asyncio.wait({started, reading}, timeout=START_S, return_when="FIRST_COMPLETED")
        started.cancel()
        if not ready.is_set():
            raise RuntimeError(f"the daemon did not start:\n{daemon.last_lines()}")
        yield daemon
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), STOP_S)
        if code != 0:
            raise RuntimeError(f"the daemon ended with {code}:\n{daemon.last_lines()}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reading.cancel()


async def _read(daemon: MeasuredDaemon, began: float, ready: asyncio.Event) -> None:
    """Take in its stdout until it ends: a full pipe would stop it."""
    assert daemon.process.stdout is not None
    while line := (await daemon.process.stdout.readline()).decode().rstrip("\n"):
        daemon.output.append(line)
        if line.startswith("Starting HTTP server"):
            daemon.listening_s = time.perf_counter() - began
        elif line.startswith("{") and not ready.is_set():
            daemon.ready_s = time.perf_counter() - began
            ports = json.loads(line)["ports"]
            daemon.url = f"http://127.0.0.1:{ports['http']}"
            daemon.grpc = f"127.0.0.1:{ports['grpc']}" if "grpc" in ports else ""
            ready.set()
