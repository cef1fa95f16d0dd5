"""Serving the application: listening, draining."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from nerve.errors import AddressUnavailable
from nerve.frontend.http.in_flight import IN_FLIGHT

log = logging.getLogger(__name__)

BACKLOG: Final = 2048
KEEPALIVE_S: Final = 75.0
"""How long a connection may be idle, or take to send the head of its first request."""
WRITE_TIMEOUT_S: Final = 2.0
"""How long a slow client may take, when the server stops, to read an answer that is ready."""


class _ClientFaults(logging.Filter):
    """Bytes that are no HTTP are the sender's affair: no traceback, and only at debug level."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is None or not issubclass(kind, HttpProcessingError):
            return True
        log.debug("a client sent bytes that are no HTTP: %s", kind.__name__)
        return False


def _protocol_log() -> logging.Logger:
    logger = logging.getLogger("nerve.frontend.http.protocol")
    if not logger.filters:
        logger.addFilter(_ClientFaults())
    return logger


class HttpServer:
    """A listening application. `start`, then `stop`."""

    def __init__(self, app: web.Application, *, shutdown_timeout_s: float) -> None:
        self._in_flight, self._timeout_s = app[IN_FLIGHT], shutdown_timeout_s
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,  # a caller that left costs nothing
            shutdown_timeout=WRITE_TIMEOUT_S,  # aiohttp takes 0 for "for ever"
            # After a refused body the rest is read and dropped for so long, so that the client
            # can read the answer before the connection ends.
            lingering_time=2.0,
            keepalive_timeout=KEEPALIVE_S,
            logger=_protocol_log(),
            auto_decompress=False,  # aiohttp answers br and zstd as if they were no HTTP
        )
        self._site: web.TCPSite | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the kernel's choice for 0).

        Raises:
            AddressUnavailable.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host.strip("[]"), port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            detail = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                detail = "the port is in use; choose another with --http-port"
            raise AddressUnavailable(host, port, detail) from error
        self._site = site
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop accepting, let requests in flight end within the time limit, close.

        aiohttp's own shutdown reads nothing more, so a request whose body is on its way would
        be lost; this waits for it first.
        """
        self._in_flight.draining = True
        if self._site is not None:
            await self._site.stop()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._in_flight.wait_for_none()
            except TimeoutError:
                log.warning("requests were still in flight after %g s", self._timeout_s)
        await self._runner.cleanup()
