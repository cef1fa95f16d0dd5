"""A real daemon that is mistreated: what it logs, what it has open, and bytes sent to it as they are."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

PATIENCE_S: Final = 60.0
ONE: Final = b'{"inputs":"London","aggregation_strategy":"simple"}'


@dataclass(slots=True)
class Served:
    """A running `nerve serve`; `log` is its stderr, a file unless a test has it elsewhere."""

    process: asyncio.subprocess.Process
    ports: Mapping[str, int]
    log: Path

    @property
    def http(self) -> int:
        return self.ports["http"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def files(self) -> int:
        """Open files, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208  names, not paths

    def children(self) -> list[str]:
        """Ids of its own processes."""
        found = []
        for each in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                parent = each.read_text().rpartition(")")[2].split()[1]
                if parent == str(self.process.pid):
                    found.append(each.parent.name)
        return found

    def logged(self) -> str:
        return self.log.read_text()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """The exit status."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of HTTP."""
        return await asyncio.open_connection("127.0.0.1", self.http, limit=2**24)

    async def tell(self, *parts: bytes, limit_s: float = 30.0) -> bytes:
        """Send bytes on a connection of their own; all that comes back until it ends."""
        reader, writer = await self.dial()
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(limit_s):
                return await to_the_end(reader)
        finally:
            writer.transport.abort()

    async def ask(self, model: str = "bert") -> int:
        """Status of a request like any other."""
        async with aiohttp.ClientSession() as http:
            path = f"{self.url}/v1/models/{model}/predict_tokens"
            async with http.post(path, data=ONE) as answer:
                await answer.read()
                return answer.status

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as answer:
            return await answer.json()

    async def status(self, path: str) -> int:
        async with aiohttp.ClientSession() as http, http.get(self.url + path) as answer:
            return answer.status

    async def at_work(self, protocol: str) -> int:
        """Requests that are being answered; over HTTP with the one that asks."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as answer:
            told = await answer.text()
        line = f'nerve_in_flight_requests{{protocol="{protocol}"}} '
        return int(float(told.split(line)[1].split("\n")[0]))

    async def waiting(self, model: str) -> int:
        """Texts in a model's queue."""
        told = await self.get(f"/v1/models/{model}")
        return sum(version["statistics"]["queued_rows"] for version in told["versions"])


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, by a reset or not."""
    got = b""
    try:
        while part := await reader.read(2**16):
            got += part
    except ConnectionError:
        pass
    return got


async def to_the_end_of(connection: socket.socket) -> bytes:
    """The same for one that is fed meanwhile: a stream forgets what came as soon as it cannot be fed."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    got = b""
    with suppress(ConnectionError):
        while part := await loop.sock_recv(connection, 2**16):
            got += part
    return got


def post(model: str = "bert", body: bytes = ONE, *headers: str, path: str = "") -> bytes:
    """A request."""
    lines = [
        f"POST {path or f'/v1/models/{model}/predict_tokens'} HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def statuses(answers: bytes) -> list[int]:
    """Of every answer in what a connection gave."""
    return [int(number) for number in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]


async def until(condition: Callable[[], object], what: str, *, limit_s: float = PATIENCE_S) -> None:
    """Look until it is so."""

    async def look() -> object:
        return condition()

    await until_told(look, what, limit_s=limit_s)


async def until_told(
    ask: Callable[[], Awaitable[object]], what: str, *, limit_s: float = PATIENCE_S
) -> None:
    """Ask until the answer is that it is so."""
    by = time.monotonic() + limit_s
    while not await ask():
        assert time.monotonic() < by, f"waited {limit_s:g} s in vain until {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(
    repository: Path,
    log: Path,
    *arguments: str,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    shell: str = "",
) -> AsyncIterator[Served]:
    """The daemon until the block ends, killed if it has not ended by then.

    Args:
        repository: that it serves.
        log: gets its stderr.
        arguments: flags.
        before: a program that runs it.
        env: variables besides ours.
        shell: commands that are run first in its process.
    """
    command = [*before, sys.executable, "-m", "nerve", "serve", str(repository)]
    command += ["--http-hostname", "127.0.0.1", "--grpc-hostname", "127.0.0.1"]
    command += ["--http-port", "0", "--grpc-port", "0", "--no-prove-models", *arguments]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'{shell}\nexec "$@" 2>"$0"', str(log), *command),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (line := (await process.stdout.readline()).decode()).startswith("{"):
                assert line, f"it ended with {await process.wait()}: {log.read_text()[-2000:]}"
        yield Served(process, json.loads(line)["ports"], log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def calm(log: str) -> None:
    """Fails if something went wrong that nobody thought of."""
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log
    assert "exception" not in log.lower(), log
