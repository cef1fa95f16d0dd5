"""A way to a server that can be shut, as when the server or the network is gone, and opened again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65536


class Door:
    """Passes connections on to a port of this machine; while it is shut, it hangs up on all."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._passing: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._open = True

    @property
    def url(self) -> str:
        """HTTP's root on this side."""
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """Hang up, now and on whoever comes."""
        self._open = False
        for writer in self._passing:
            writer.transport.abort()

    def reopen(self) -> None:
        """Pass on again."""
        self._open = True

    async def came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        if not self._open:
            writer.transport.abort()
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, inner_writer}
        self._passing |= both
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_carry(reader, inner_writer))
                ways.create_task(_carry(inner_reader, writer))
        finally:
            self._passing -= both
            for each in both:
                each.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()  # neither way goes on alone


@asynccontextmanager
async def door_to(target: int) -> AsyncIterator[Door]:
    """An open door to a port."""
    door = Door(target)
    server = await asyncio.start_server(door.came, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        server.close()
        door.shut()
        await server.wait_closed()
