"""Listening with TLS: connections are accepted and counted here, before HTTP hears of them.

A server of asyncio's tells of a connection when its handshake is done; one that sends nothing would be
in no limit until then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from typing import Final

from nerve.frontend.http.connections import RESERVE, Connections

log = logging.getLogger(__name__)

BATCH: Final = 64
"""Connections that are accepted in one turn of the event loop."""
NO_FILE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S: Final = 0.1
"""Until the next try when there was no file for a connection."""
TELL_S: Final = 60.0
"""How often the log says so."""


class TlsListener:
    """Accepts connections until it is closed; each joins the others when its handshake is done.

    Handshakes may have the places that connections leave, and RESERVE in any case; for one more, the
    longest of them gives way.
    """

    def __init__(
        self,
        connections: Connections,
        context: ssl.SSLContext,
        *,
        handshake_s: float,
        backlog: int,
    ) -> None:
        """`handshake_s` is how long a client may take to agree on TLS."""
        self._connections, self._context = connections, context
        self._handshake_s, self._backlog = handshake_s, backlog
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], None] = {}  # longest first
        self._told = -TELL_S
        self.sockets: list[socket.socket] = []

    @property
    def handshakes(self) -> int:
        """That are in progress."""
        return len(self._handshakes)

    async def start(self, host: str, port: int) -> None:
        """Listen on every address of `host`.

        Raises:
            OSError.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, address in dict.fromkeys((each[0], each[4]) for each in found):
                opened = socket.create_server(address, family=family, backlog=self._backlog)
                opened.setblocking(False)
                self.sockets.append(opened)
        except OSError:
            self.close()
            raise
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self.sockets]

    def close(self) -> None:
        """Accept no more; handshakes go on."""
        for task in self._accepting:
            task.cancel()
        for each in self.sockets:
            each.close()

    async def aclose(self) -> None:
        """End handshakes, too."""
        self.close()
        tasks = [*self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop, accepted = asyncio.get_running_loop(), 0
        while True:
            try:
                caller, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in NO_FILE:  # it was gone before it was accepted
                    log.debug("a connection was not accepted: %s", error)
                    await asyncio.sleep(0)
                    continue
                self._tell(error)
                self._give_up()
                await asyncio.sleep(PAUSE_S)
                continue
            self._shake(caller)
            accepted += 1
            if accepted % BATCH == 0:  # with more at hand, accepting does not wait by itself
                await asyncio.sleep(0)

    def _shake(self, caller: socket.socket) -> None:
        room = max(RESERVE, self._connections.limit - self._connections.count)
        while len(self._handshakes) >= room:
            self._give_up()
        task = asyncio.create_task(self._agree(caller), name="TLS handshake")
        self._handshakes[task] = None

        def ended(task: asyncio.Task[None]) -> None:
            self._handshakes.pop(task, None)
            if task.cancelled():  # perhaps before it could begin
                caller.close()

        task.add_done_callback(ended)

    async def _agree(self, caller: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._connections,
                caller,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_s,
            )
        except OSError as error:  # of TLS, too: the client's affair
            log.debug("a client did not agree on TLS: %s", error)
        except Exception:  # boundary: one client must not end up as a task nobody waits for
            log.exception("a TLS handshake failed")

    def _give_up(self) -> None:
        """End the longest handshake."""
        longest = next(iter(self._handshakes), None)
        if longest is not None:
            del self._handshakes[longest]
            longest.cancel()

    def _tell(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_S:
            self._told = now
            log.warning("connections are not accepted: %s", error.strerror)
