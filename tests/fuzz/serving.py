"""The daemon that is fuzzed: started with models to answer and one to be unloaded, and what it holds."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz.http_cases import SERVING, VICTIM
from fuzz.probed import MARK

MODELS: Final = Path(__file__).parents[1] / "models"
START_S: Final = 60.0
EXECUTOR: Final = re.compile("asyncio_|uvloop_")
"""Names of threads of an event loop's executor."""
ENVIRONMENT: Final = {"NERVE_MCP_SESSION_TIMEOUT_S": "2"}
"""Sessions that no client ends shall be gone when we look."""
WILD: Final = (
    "Traceback",
    "exception was never retrieved",
    "coroutine '",
    "was never awaited",
    "failed; its log tells",
)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: counts by name, and bytes."""

    tasks: Mapping[str, int]
    threads: Mapping[str, int]
    files: Mapping[str, int]
    children: int
    rss_bytes: int
    peak_bytes: int

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """What must come back to its level. Threads of the loop's executor do not: it starts them when
        it is first that busy, as many as Python lets it, and keeps them."""
        threads = {name: count for name, count in self.threads.items() if not EXECUTOR.match(name)}
        kinds = {"task": self.tasks, "thread": threads, "file": self.files}
        counts = {(kind, name): n for kind, all_ in kinds.items() for name, n in all_.items()}
        return Counter(counts | {("child", ""): self.children})

    def exceeds(self, before: Held) -> bool:
        """Whether there is more of anything. There may be less: a thread may outlive its model."""
        return not self.counts <= before.counts


class Fuzzed:
    """A running daemon."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self.log = process, log
        self.http_port = self.grpc_port = 0

    async def _line(self, begin: str) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"the daemon ended: {self.log.read_text()[-2000:]}"
                if line.startswith(begin):
                    return line.removeprefix(begin)

    async def ready(self) -> None:
        """Wait until it listens and its models are loaded."""
        ports = json.loads("{" + await self._line("{"))["ports"]
        self.http_port, self.grpc_port = ports["http"], ports["grpc"]

    async def held(self) -> Held:
        """What it holds now."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        return Held(**json.loads(await self._line(MARK)))

    def wild_lines(self) -> list[str]:
        """Lines of its log that tell of an exception that nobody handled."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if any(word in line for word in WILD)]
        return lines[:5] + ([text[text.index("Traceback") :][:3000]] if "Traceback" in text else [])


def repository_in(folder: Path) -> Path:
    """A repository of the tiny models that the cases name."""
    repository = folder / "repository"
    for name in SERVING:
        shutil.copytree(MODELS / name, repository / name)
    shutil.copytree(MODELS / SERVING[0], repository / VICTIM)
    return repository


@asynccontextmanager
async def fuzzed(folder: Path, *arguments: str) -> AsyncIterator[Fuzzed]:
    """The daemon with every door open, until the block ends; its exit code must be 0."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("probed.py")),
        "serve",
        "--allow-model-control",
    ]
    command += ["--enable-mcp", "--default-model", SERVING[0]]
    for door in ("http", "grpc"):
        command += [f"--{door}-hostname", "127.0.0.1", f"--{door}-port", "0"]
    log = folder / "daemon.log"
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=written,
            env={**os.environ, **ENVIRONMENT, "NERVE_REPOSITORIES": str(repository_in(folder))},
            limit=2**20,
        )
    try:
        daemon = Fuzzed(process, log)
        await daemon.ready()
        yield daemon
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_S):
            assert await process.wait() == 0, log.read_text()[-2000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
