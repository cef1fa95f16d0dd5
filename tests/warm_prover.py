"""One fork server for the provers of many tests: starting it takes longer than most proofs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nerve.engine.graph_cache import GraphCache
from nerve.proof import ForkServer, Prover


class WarmServer:
    """A fork server that provers are given in turn, started when the first one is."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None

    @property
    def pids(self) -> list[int]:
        """Of the server, if it was started."""
        return [] if self._server is None else [self._server._process.pid]

    @property
    def descriptors(self) -> int:
        """How many of this process it takes."""
        return len(self.pids)

    @asynccontextmanager
    async def prover(
        self, *, timeout_s: float, memory_bytes: int | None = None, cache: GraphCache | None = None
    ) -> AsyncIterator[Prover]:
        """A prover that finds the server running, and leaves it so."""
        if self._server is None or not self._server.alive:  # as one failed test may leave it
            self.close()
            self._server = ForkServer()
        server = self._server
        prover = Prover(timeout_s=timeout_s, memory_bytes=memory_bytes, cache=cache)
        prover._server = server
        try:
            yield prover
            assert prover._server in (server, None), "the server died; the test wants its own"
            assert server.alive
        finally:
            if prover._server is server:
                prover._server = None
            await prover.aclose()

    def close(self) -> None:
        """End it; the next prover gets another one."""
        if self._server is not None:
            self._server.close()
            self._server = None
