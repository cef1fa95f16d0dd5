"""The aiohttp application: dialects' routes, deployment prefixes, errors in the right shape, serving."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from nerve.errors import AddressUnavailable, NerveError, ServerFault, shown
from nerve.frontend.http.dialect import REASON_HEADER, Dialect, Handler
from nerve.metrics.requests import RequestMetrics

log = logging.getLogger(__name__)

PREFIXES: Final = (
    "",
    "/production/sync",
    "/development/sync",
    "/environments/{environment}/sync",
    "/deployment/{deployment}/sync",
)
"""Where hosted deployments have the routes, so that changing the host is all of a migration."""
OPEN_INFERENCE: Final = re.compile(
    f"(?:{'|'.join(re.sub('{.*?}', '[^/]+', each) for each in PREFIXES)})/v2(?:/|$)"
)
"""Paths of the Open Inference Protocol, served or not: its errors have a shape of their own."""
BACKLOG: Final = 2048
KEEPALIVE_S: Final = 75.0
"""How long a connection may be idle, or take to send the head of its first request."""
WRITE_TIMEOUT_S: Final = 2.0
"""How long a slow client may take, when the server stops, to read an answer that is ready."""
ECHOED: Final = ("x-request-id", "x-baseten-customer-request-id")
"""Request headers that come back as they are, so that logs of both sides can be joined."""


class InFlight:
    """Counts requests between their head and their answer, and tells when there is none."""

    def __init__(self) -> None:
        self.draining = False
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return when no request is in flight."""
        await self._none.wait()


IN_FLIGHT: Final = web.AppKey("in_flight", InFlight)


def build_app(dialects: Sequence[Dialect], metrics: RequestMetrics) -> web.Application:
    """The application.

    Args:
        dialects: `native`, which answers for unknown paths, as `openinference` and `encoderfile` do
            where they are among them.
        metrics: requests are counted there.
    """
    by_route: dict[web.AbstractRoute, Dialect] = {}
    by_name = {dialect.name: dialect for dialect in dialects}
    by_tail = {
        route.path.rpartition("/")[2]: dialect
        for dialect in dialects
        for route in dialect.routes()
        if dialect.name != "openinference"
    }
    in_flight = InFlight()

    def dialect_of(request: web.Request) -> Dialect:
        """By route; where none matches (404, 405), by what the path looks like."""
        found = by_route.get(request.match_info.route)
        if found is None and OPEN_INFERENCE.match(request.path):
            found = by_name.get("openinference")
        if found is None:
            found = by_tail.get(request.path.rpartition("/")[2])
        if found is None and "/v1/" not in request.path:
            found = by_name.get("encoderfile")
        return found or by_name["native"]

    @web.middleware
    async def shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        dialect = dialect_of(request)
        response: web.StreamResponse
        try:
            with in_flight:
                response = await handler(request)
        except NerveError as error:
            if isinstance(error, ServerFault):
                log.error("request failed: %s", error)
            response = dialect.error(error)
            if not request.content.at_eof() or request.content.exception() is not None:
                response.force_close()  # the rest of a refused body is not waited for
        except web.HTTPException as error:
            if error.status not in (404, 405):
                raise
            response = _unserved(request, error, dialect)
        except Exception:  # boundary: one request must not take the connection down
            log.exception("request failed")
            response = dialect.error(ServerFault("the server failed; its log tells why"))
        for name in ECHOED:
            if name in request.headers:
                response.headers[name] = request.headers[name]
        if in_flight.draining:
            response.force_close()  # a client that keeps its connection finds another server
        took_s = time.monotonic() - began
        if dialect.counts(response):
            metrics.observe_request(dialect.name, str(response.status), took_s)
        if log.isEnabledFor(logging.DEBUG):
            ids = {name: request.headers[name] for name in ECHOED if name in request.headers}
            log.debug(
                "%s %s %d %.1f ms", request.method, shown(request.path), response.status,
                took_s * 1e3, extra=ids,
            )  # fmt: skip
        return response

    app = web.Application(middlewares=[shape_errors])
    app[IN_FLIGHT] = in_flight
    for dialect in dialects:
        for route in dialect.routes():
            for prefix in PREFIXES:
                methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
                for method in methods:
                    added = app.router.add_route(method, prefix + route.path, route.handler)
                    by_route[added] = dialect
    return app


def _unserved(
    request: web.Request, error: web.HTTPException, dialect: Dialect
) -> web.StreamResponse:
    if not isinstance(error, web.HTTPMethodNotAllowed):
        message = f"{shown(request.path)} is not served; see GET /docs"
        response = dialect.fallback(error.status, message)
        response.headers[REASON_HEADER] = "not_served"
        return response
    allowed = ",".join(sorted(error.allowed_methods))
    message = f"{shown(request.path)} does not take {request.method}; use {allowed}"
    response = dialect.fallback(error.status, message)
    response.headers["Allow"] = allowed
    response.headers[REASON_HEADER] = "method_not_allowed"
    return response


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
