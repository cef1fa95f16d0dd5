"""What listens: HTTP, gRPC, and metrics on a port of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.frontend.http.metrics import MetricsServer, Probes
from nerve.frontend.http.server import HttpServer

if TYPE_CHECKING:
    from nerve.frontend.grpc.server import GrpcServer
    from nerve.security.tls import Tls


class Doors:
    """Those that the settings want. `open`, then `close`, then `close_metrics`."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        http_app: web.Application,
        http_name: str,
        probes: Probes,
        new_grpc: Callable[[], GrpcServer],
        announce: Callable[[str], None],
    ) -> None:
        """Nothing listens yet. `http_name` is announced; `new_grpc` is asked when gRPC is wanted:
        to import it takes a while."""
        self._config, self._http_app, self._http_name = config, http_app, http_name
        self._probes, self._new_grpc, self._announce = probes, new_grpc, announce
        self._http: HttpServer | None = None
        self._metrics: MetricsServer | None = None
        self._grpc: GrpcServer | None = None
        self.grpc_port: int | None = None

    @property
    def connections(self) -> int:
        """Those of HTTP that are open."""
        return 0 if self._http is None else self._http.connections

    async def open(self, tls: Tls | None) -> dict[str, int]:
        """Listen, and return the ports by name. Raises AddressUnavailable."""
        config, ports = self._config, {}
        how = "" if tls is None else ", with TLS"
        if not config.disable_http:
            self._http = HttpServer(self._http_app, config, None if tls is None else tls.context)
            port = await self._http.start(config.http_hostname, config.http_port)
            ports[self._http_name.lower()] = port
            name = self._http_name
            self._announce(f"Starting {name} server on {config.http_hostname}:{port}{how}")
        if config.metrics_port is not None:
            self._metrics = MetricsServer(self._probes, config)
            port = await self._metrics.start(config.metrics_hostname, config.metrics_port)
            ports["metrics"] = port
            self._announce(f"Starting metrics server on {config.metrics_hostname}:{port}")
        if not config.disable_grpc:
            self._grpc = self._new_grpc()
            port = await self._grpc.start(config.grpc_hostname, config.grpc_port)
            ports["grpc"] = self.grpc_port = port
            self._announce(f"Starting gRPC server on {config.grpc_hostname}:{port}{how}")
        return ports

    def tell_health(self) -> None:
        """Have gRPC's health service look again."""
        if self._grpc is not None:
            self._grpc.tell_change()

    def drain(self) -> None:
        """Have clients look for another server; all is still answered."""
        self.tell_health()
        if self._http is not None:
            self._http.drain()

    async def close(self) -> int:
        """Stop accepting and finish what is in flight, but for metrics. Returns how many requests were
        cut off, as they took too long."""
        servers = [server for server in (self._http, self._grpc) if server is not None]
        return sum(await asyncio.gather(*(server.stop() for server in servers)))

    async def close_metrics(self) -> None:
        """The last: so that the end can be seen."""
        if self._metrics is not None:
            await self._metrics.stop()
