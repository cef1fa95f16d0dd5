"""The real daemon on ports of the kernel's choice, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Daemon:
    """A running `nerve serve`. `output` grows line by line; `url` is its HTTP root."""

    process: asyncio.subprocess.Process
    ports: Mapping[str, int]
    output: list[str]
    told_to_stop: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def stop(self) -> None:
        """Send SIGTERM, once."""
        if not self.told_to_stop and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        self.told_to_stop = True


@asynccontextmanager
async def running_server(
    *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Daemon]:
    """`python -m nerve serve` until the block ends; then SIGTERM, and the exit code must be 0."""
    command = [sys.executable, "-m", "nerve", "serve", "--http-hostname", "127.0.0.1"]
    command += ["--grpc-hostname", "127.0.0.1", "--http-port", "0", "--grpc-port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    assert process.stdout is not None
    output: list[str] = []
    ports: dict[str, int] = {}
    try:
        async with asyncio.timeout(60):
            while not ports:
                line = (await process.stdout.readline()).decode()
                assert line, f"the daemon ended with {await process.wait()}: {output}"
                output.append(line.rstrip("\n"))
                if line.startswith("{"):
                    ports = json.loads(line)["ports"]
        daemon = Daemon(process, ports, output)
        yield daemon
        daemon.stop()
        async with asyncio.timeout(60):
            rest = await process.stdout.read()
            output += rest.decode().splitlines()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
