"""/metrics, /livez and /readyz: on the port of HTTP, or on one of their own."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import AddressUnavailable, NerveError
from nerve.exchange import Access, Exchanges
from nerve.frontend.admission import Admission
from nerve.frontend.guard import Anyone
from nerve.frontend.http.application import build_app
from nerve.frontend.http.browsers import Browsers
from nerve.frontend.http.dialect import Dialect, Route, error_headers, json_response
from nerve.frontend.http.server import HttpServer
from nerve.frontend.status import outcome
from nerve.metrics.exposition import Exposition
from nerve.service.control import ControlService

PATH: Final = "/metrics"
MOST_CONNECTIONS: Final = 32
"""On a port of its own: monitoring needs few, and files are for the others."""


class Probes:
    """Their handlers."""

    def __init__(self, control: ControlService, exposition: Exposition) -> None:
        self._control, self._exposition = control, exposition

    async def live(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return json_response({"live": True})

    async def ready(self, _request: web.Request) -> web.Response:
        """Whether the server should get traffic; 503 if not."""
        ready = self._control.ready
        body: dict[str, object] = {"ready": ready, "models": self._control.states()}
        if self._control.draining:
            body["reason"] = "stopping"
        return json_response(body, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' page, in the format that the client takes."""
        headers = request.headers
        page = await self._exposition.page(
            headers.get("Accept", ""), headers.get("Accept-Encoding", "")
        )
        sent = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
        if page.gzipped:
            sent["Content-Encoding"] = "gzip"
        return web.Response(body=page.body, headers=sent)


class ProbesDialect(Dialect):
    """/metrics, /livez and /readyz, for whoever can connect."""

    name = "native"

    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("GET", PATH, self._probes.metrics, Access.OPEN, documented=False),
            Route("GET", "/livez", self._probes.live, Access.OPEN, documented=False),
            Route("GET", "/readyz", self._probes.ready, Access.OPEN, documented=False),
        ]

    def error(self, error: NerveError) -> web.Response:
        """`{"error", "reason"}`."""
        body = {"error": str(error), "reason": error.reason}
        return json_response(body, status=outcome(error).http, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """The same shape."""
        reason = "method_not_allowed" if status == 405 else "not_found"
        return json_response({"error": message, "reason": reason}, status=status)


class MetricsServer:
    """Serves nothing else, on a port of its own; its requests are in no metric, log or trace. `start`,
    then `stop`."""

    def __init__(self, probes: Probes, config: ServerConfig) -> None:
        anyone = Admission(
            Anyone(),  # a key would not help whoever asks for what is not here
            max_requests=config.max_requests_in_flight,
            max_bytes=config.max_bytes_in_flight,
        )
        app = build_app([ProbesDialect(probes)], Exchanges(), anyone, Browsers(config))
        most = min(config.max_connections, MOST_CONNECTIONS)
        self._server = HttpServer(app, config.model_copy(update={"max_connections": most}))

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the kernel's choice for 0).

        Raises:
            AddressUnavailable.
        """
        try:
            return await self._server.start(host, port)
        except AddressUnavailable as error:
            detail = error.detail.replace("--http-", "--metrics-")
            raise AddressUnavailable(host, port, detail) from error

    async def stop(self) -> None:
        """Stop accepting, finish, close."""
        await self._server.stop()
