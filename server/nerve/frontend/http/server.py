"""Serving the application: listening, draining."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import sys
import time
from asyncio.trsock import TransportSocket
from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from nerve.config.settings.limits import LimitSettings
from nerve.errors import AddressUnavailable
from nerve.frontend.addresses import refusal
from nerve.frontend.files import grpc_places, open_files
from nerve.frontend.http.application import QUICK, UNREAD
from nerve.frontend.http.connection import Times
from nerve.frontend.http.connections import RESERVE, Connections
from nerve.frontend.http.in_flight import IN_FLIGHT
from nerve.frontend.http.protocol import Protocol
from nerve.frontend.http.tls_listener import TlsListener

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
WRITE_TIMEOUT_S: Final = 2.0
"""When the server stops: how long a client may take to send the rest of a head, and a slow one to read
an answer that is ready."""
SILENT_S: Final = 0.5
"""When the server stops: how long a client that has connected may take to ask."""
HANDSHAKE_S: Final = 10.0
"""How long a client may take to agree on TLS."""
SETTLING_S: Final = 0.01
TURNS: Final = 100
"""When the server stops: most turns of the event loop in which those are accepted who wait for it."""
SPARE_FILES: Final = 3 * RESERVE
"""Files that are left for all else than connections: those over the limit, those that are refused, and
models."""


class _ClientFaults(logging.Filter):
    """Bytes that are no HTTP are the sender's affair: no traceback, and only at debug level."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is None or not issubclass(kind, HttpProcessingError):
            return True
        log.debug("a client sent bytes that are no HTTP: %s", kind.__name__)
        return False


def _awaited(listeners: Iterable[socket.socket | TransportSocket]) -> bool:
    """Whether somebody has connected who is not accepted yet."""
    if sys.platform == "win32":
        return False
    waiting = select.poll()
    for listener in listeners:
        waiting.register(listener.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _protocol_log() -> logging.Logger:
    logger = logging.getLogger("nerve.frontend.http.protocol")
    if not logger.filters:
        logger.addFilter(_ClientFaults())
    return logger


class HttpServer:
    """A listening application. `start`, then `stop`."""

    def __init__(
        self, app: web.Application, limits: LimitSettings, tls: ssl.SSLContext | None = None
    ) -> None:
        """`tls` is what it listens with; by default there is none."""
        self._tls = tls
        self._in_flight, self._limits, self._quick = app[IN_FLIGHT], limits, app[QUICK]
        self._answer = app[UNREAD]
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # a caller that left costs nothing
            shutdown_timeout=WRITE_TIMEOUT_S,  # aiohttp takes 0 for "for ever"
        )
        self._listener: asyncio.Server | TlsListener | None = None
        self._connections: Connections | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """That are open."""
        waiting = self._listener.handshakes if isinstance(self._listener, TlsListener) else 0
        return waiting + (0 if self._connections is None else self._connections.count)

    def _new_protocol(self) -> Protocol:
        """aiohttp's part of a connection."""
        server, limits = self._runner.server, self._limits
        assert server is not None
        made = Protocol(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # that is how one does without
            # After a refused body the rest is read and dropped for so long, so that the client
            # can read the answer before the connection ends.
            lingering_time=2.0,
            keepalive_timeout=limits.keepalive_timeout_s,
            logger=_protocol_log(),
            auto_decompress=False,  # aiohttp answers br and zstd as if they were no HTTP
            # A line alone is bounded by the whole head, which `Connections` measures.
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
        )
        return made.answer_with(self._answer)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the kernel's choice for 0).

        Raises:
            AddressUnavailable.
        """
        limits = self._limits
        most = open_files() - grpc_places(limits) - SPARE_FILES
        most -= 0 if self._tls is None else RESERVE  # handshakes
        if most < limits.max_connections:
            log.warning(
                "max_connections is %d, but this process may open no more files than for %d "
                "(ulimit -n): that is the limit",
                limits.max_connections,
                max(most, 1),
            )
        await self._runner.setup()
        connections = Connections(
            self._new_protocol,
            limit=max(1, min(limits.max_connections, most)),
            times=Times(limits.head_timeout_s, limits.write_timeout_s, limits.keepalive_timeout_s),
            max_header_bytes=limits.max_header_bytes,
            quick=self._quick,
        )
        try:
            listener = await self._listen(connections, host.strip("[]"), port)
        except OSError as error:
            await self._runner.cleanup()
            raise AddressUnavailable(host, port, refusal(error, "--http")) from error
        self._listener, self._connections = listener, connections
        self._watching = asyncio.create_task(connections.watch(), name="connections")
        return int(listener.sockets[0].getsockname()[1])

    async def _listen(
        self, connections: Connections, host: str, port: int
    ) -> asyncio.Server | TlsListener:
        """Raises OSError."""
        if self._tls is None:
            loop = asyncio.get_running_loop()
            return await loop.create_server(connections, host, port, backlog=BACKLOG)
        patience_s = min(HANDSHAKE_S, self._limits.head_timeout_s)
        listener = TlsListener(connections, self._tls, handshake_s=patience_s, backlog=BACKLOG)
        await listener.start(host, port)
        return listener

    def drain(self) -> None:
        """Have clients that keep their connections look for another server with their next request."""
        self._in_flight.draining = self._quick.stopped = True

    async def stop(self) -> int:
        """Stop accepting, let requests in flight end within the time limit, close.

        aiohttp's own shutdown reads nothing more, so a request whose body is on its way would
        be lost; this waits for it first.

        Returns:
            Requests that were cut off.
        """
        self.drain()
        cut_off = 0
        if self._listener is not None:
            for _ in range(TURNS):  # who has connected by now is accepted
                await asyncio.sleep(0)
                if not _awaited(self._listener.sockets):
                    break
            self._listener.close()
            try:
                async with asyncio.timeout(self._limits.shutdown_timeout_s):
                    await self._finish()
            except TimeoutError:
                cut_off = self._in_flight.count
        if self._watching is not None:
            self._watching.cancel()
        if isinstance(self._listener, TlsListener):
            await self._listener.aclose()
        if self._connections is not None:
            self._connections.hang_up()  # whoever has not read by now; the others are idle
        await self._runner.cleanup()
        return cut_off

    async def _finish(self) -> None:
        """Return when everything that has come is answered."""
        assert self._connections is not None
        silent_until = time.monotonic() + SILENT_S
        settled_by: float | None = None
        while True:
            if self._in_flight.count:
                settled_by = None
                await self._in_flight.wait_for_none()
            now = time.monotonic()
            silent = now < silent_until
            shaking = silent and self.connections > self._connections.count
            if settled_by is None:
                settled_by = now + WRITE_TIMEOUT_S
            if now > settled_by or not (shaking or self._connections.unsettled(silent=silent)):
                return
            await asyncio.sleep(SETTLING_S)
