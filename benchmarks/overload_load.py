"""Callers for `overload.py`, in a process of their own: so many requests a second, whatever is answered.

Times count from when a request was to be sent, so one that had to wait to be sent looks no better for
it. Run by `overload.py`: a job as JSON on stdin, what came of it as JSON on stdout.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
END: Final = b"\r\n\r\n"
PROBE: Final = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
PROBE_EVERY_S: Final = 0.05
MOST_CONNECTIONS: Final = 3000
REST_S: Final = 70.0
"""How long the last answers may take."""


@dataclass(slots=True)
class Tally:
    """Seconds of every answer by status, those of /health, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    ended: list[float] = field(default_factory=list)
    """When the accepted ones were answered, seconds since the start."""
    health: list[float] = field(default_factory=list)
    broken: int = 0
    late_s: float = 0.0
    """The longest that a request was sent after its time."""


class Line(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load, self._data = load, b""
        self.transport: Any = None
        self.due: float | None = None
        self.probe = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to be used."""
        self.transport = transport

    def send(self, request: bytes, due: float, *, probe: bool = False) -> None:
        """Ask; `due` is when it should have been."""
        self.due, self.probe = due, probe
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer, or the last one."""
        self._data += data
        end = self._data.find(END)
        if end < 0:
            return
        length = LENGTH.search(self._data, 0, end + 2)
        assert length is not None, self._data[:300]
        if len(self._data) < end + 4 + int(length[1]):
            return
        status, self._data = self._data[9:12].decode(), b""
        self._load.answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It has ended."""
        self._load.lost(self)
        self.transport = None


class Load:
    """Requests at a rate, each on a connection that is free, or on a new one."""

    def __init__(self, address: tuple[str, int], requests: list[bytes]) -> None:
        self._address, self._requests = address, requests
        self._free: deque[Line] = deque()
        self._lines = self._asked = self._waiting = 0
        self._closed_loop = False
        self._until = self._began = 0.0
        self.tally = Tally()

    async def run(self, *, rate: float, callers: int, seconds: float) -> Tally:
        """Send `rate` a second, or with `callers` as many as so many get answered."""
        self._began = time.perf_counter()
        self._until = self._began + seconds
        health = asyncio.create_task(self._probe())
        if callers:
            self._closed_loop = True
            for _ in range(callers):
                self._ask(await self._connect(), time.perf_counter())
            await asyncio.sleep(seconds)
        else:
            await self._open_loop(rate)
        health.cancel()
        by = time.perf_counter() + REST_S
        while self._waiting and time.perf_counter() < by:  # noqa: ASYNC110  no event a request
            await asyncio.sleep(0.02)
        self.tally.broken += self._waiting
        return self.tally

    async def _open_loop(self, rate: float) -> None:
        """Requests come by chance (Poisson), at this rate on average."""
        chance = random.Random(7)
        due = self._began
        pending: set[asyncio.Task[None]] = set()
        while (due := due + chance.expovariate(rate)) < self._until:
            if (ahead := due - time.perf_counter()) > 0.001:
                await asyncio.sleep(ahead)
            self.tally.late_s = max(self.tally.late_s, time.perf_counter() - due)
            if self._free:
                self._ask(self._free.pop(), due)
            elif self._lines < MOST_CONNECTIONS:
                task = asyncio.create_task(self._ask_anew(due))
                pending.add(task)
                task.add_done_callback(pending.discard)
            else:
                self.tally.broken += 1
        await asyncio.gather(*pending, return_exceptions=True)

    async def _ask_anew(self, due: float) -> None:
        try:
            self._ask(await self._connect(), due)
        except OSError:
            self.tally.broken += 1

    async def _connect(self) -> Line:
        self._lines += 1
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(self), *self._address
        )
        return line

    def _ask(self, line: Line, due: float) -> None:
        self._asked += 1
        self._waiting += 1
        line.send(self._requests[self._asked % len(self._requests)], due)

    def answered(self, line: Line, status: str) -> None:
        """An answer is there."""
        now = time.perf_counter()
        assert line.due is not None
        took, line.due = now - line.due, None
        if line.probe:
            self.tally.health.append(took)
            return
        self._waiting -= 1
        self.tally.seconds.setdefault(status, []).append(took)
        if status == "200":
            self.tally.ended.append(now - self._began)
        if self._closed_loop:
            if now < self._until:
                self._ask(line, now)
            return
        self._free.append(line)

    def lost(self, line: Line) -> None:
        """The server has closed a connection."""
        self._lines -= 1
        if line in self._free:
            self._free.remove(line)
        if line.due is not None and not line.probe:
            self._waiting -= 1
            self.tally.broken += 1

    async def _probe(self) -> None:
        """Ask for health all the time; half of it on connections of their own, as probes do."""
        kept = await self._connect()
        due, turn = time.perf_counter(), 0
        while True:
            due += PROBE_EVERY_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            turn += 1
            if turn % 2 and kept.transport is not None and kept.due is None:
                kept.send(PROBE, time.perf_counter(), probe=True)
                continue
            began = time.perf_counter()
            fresh = await self._connect()
            fresh.send(PROBE, began, probe=True)
            while fresh.due is not None and fresh.transport is not None:  # noqa: ASYNC110  as above
                await asyncio.sleep(0.001)
            if fresh.transport is not None:
                fresh.transport.close()


def main() -> None:
    """Do the job that stdin tells of."""
    import uvloop  # noqa: PLC0415  a server of its own must not depend on it

    job = json.load(sys.stdin)
    parts = urlsplit(job["url"])
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    )
    requests = [
        f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in Path(job["bodies"]).read_bytes().splitlines()
    ]

    async def run() -> Tally:
        load = Load((str(parts.hostname), int(parts.port or 80)), requests)
        return await load.run(rate=job["rate"], callers=job["callers"], seconds=job["seconds"])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(run())
    json.dump({name: getattr(tally, name) for name in Tally.__slots__}, sys.stdout)


if __name__ == "__main__":
    main()
