"""The grpc.aio server: listening, limits, keepalive, which service answers a call, draining."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import grpc

from nerve.config.server import ServerConfig
from nerve.errors import AddressUnavailable
from nerve.exchange import Exchanges
from nerve.frontend.addresses import refusal
from nerve.frontend.admission import Admission
from nerve.frontend.files import grpc_places
from nerve.frontend.grpc.calls import Bind, Handler, Shell
from nerve.frontend.grpc.health import HealthService
from nerve.frontend.grpc.reading import Reader
from nerve.frontend.grpc.reflection import NAMES, ReflectionService
from nerve.frontend.grpc.tls import Files, credentials
from nerve.service.control import ControlService

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 1024
"""Most calls at the same time on one connection; further ones wait at the client."""
WRITE_TIMEOUT_S: Final = 2.0
"""When the server stops: how long a slow client may take to read answers that are ready."""
SETTLING_S: Final = 0.02
HANDSHAKE_S: Final = 10.0
"""How long a client may take to agree on HTTP/2, and on TLS before."""
PING_TIMEOUT_S: Final = 20.0
"""How long a client may leave a ping unanswered before its connection is given up."""


class Service(Protocol):
    """What answers the methods of one service of a .proto file."""

    @property
    def name(self) -> str:
        """With its package."""

    @property
    def shell(self) -> Shell:
        """Of its calls."""

    def methods(self) -> Mapping[str, Bind]:
        """What makes each method's handler, by its name."""


def options(config: ServerConfig) -> list[tuple[str, int]]:
    """Channel arguments. Pure."""
    given = {
        "grpc.max_receive_message_length": config.max_infer_bytes,
        # The first is where grpc begins to refuse some at random, the second where it refuses all.
        "grpc.max_metadata_size": config.max_header_bytes,
        "grpc.absolute_max_metadata_size": config.max_header_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.max_concurrent_streams": MAX_STREAMS,
        "grpc.so_reuseport": 0,  # else two servers share a port and neither says so
        "grpc.server_handshake_timeout_ms": _ms(HANDSHAKE_S),
        "grpc.max_connection_idle_ms": _ms(config.grpc_max_connection_idle_s),
        "grpc.keepalive_time_ms": _ms(config.grpc_keepalive_s),
        "grpc.keepalive_timeout_ms": _ms(PING_TIMEOUT_S),
        # Both sides: connections without calls are pinged, and may ping.
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.http2.min_ping_interval_without_data_ms": _ms(config.grpc_min_ping_interval_s),
    }
    if config.grpc_max_connection_age_s is not None:
        given["grpc.max_connection_age_ms"] = _ms(config.grpc_max_connection_age_s)
        given["grpc.max_connection_age_grace_ms"] = _ms(config.request_timeout_s)
    return list(given.items())


def _check_free(host: str, port: int) -> None:
    """Raises AddressUnavailable if it is not: grpc would also write lines of its own."""
    refused: list[OSError] = []
    addresses = _addresses(host, port)
    for family, kind, _, _, address in addresses:
        try:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressUnavailable(host, port, refusal(error, "--grpc")) from error
            refused.append(error)
    # One address of a name is enough for grpc, and of [::] it makes 0.0.0.0 where there is no IPv6.
    if len(refused) == len(addresses) and host.strip("[]") != "::":
        raise AddressUnavailable(host, port, refusal(refused[0], "--grpc")) from refused[0]


def _addresses(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressUnavailable(host, port, refusal(error, "--grpc")) from error


def _ms(seconds: float) -> int:
    return min(round(seconds * 1000), 2**31 - 1)


class _Router(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """All methods in one table.

    grpc.aio asks one generic handler after the other, and waits anew for each method that is
    registered whenever a call comes; so there is one handler, and nothing is registered.
    """

    def __init__(self, services: Sequence[Service], reader: Reader) -> None:
        self._handlers = {
            path: bind(path, reader)
            for service in services
            for method, bind in service.methods().items()
            for path in (f"/{service.name}/{method}",)
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """What answers a call, None if nothing does."""
        return self._handlers.get(handler_call_details.method)


class GrpcServer:
    """A listening server with health and reflection. `start`, `tell_change`, then `stop`."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        control: ControlService,
        config: ServerConfig,
        exchanges: Exchanges,
        guard: Admission,
        tls: Files | None = None,
    ) -> None:
        """`tls` is what it listens with; by default there is none."""
        names = [*(each.name for each in services), HealthService.name]
        self._config, self._admission, self._tls = config, guard, tls
        self._health = HealthService(control, [*names, *NAMES], exchanges, guard)
        reflections = [ReflectionService(name, names, exchanges, guard) for name in NAMES]
        self._services: list[Service] = [*services, self._health, *reflections]
        self._server: Any = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the kernel's choice for 0).

        Raises:
            AddressUnavailable.
        """
        _check_free(host, port)
        limit = ("grpc.max_allowed_incoming_connections", self._most_connections())
        self._server = grpc.aio.server(options=[*options(self._config), limit])
        reader = Reader(self._admission, timeout_s=self._config.body_timeout_s)
        self._server.add_generic_rpc_handlers([_Router(self._services, reader)])
        try:
            if self._tls is None:
                bound = int(self._server.add_insecure_port(f"{host}:{port}"))
            else:
                bound = int(self._server.add_secure_port(f"{host}:{port}", credentials(self._tls)))
        except RuntimeError as error:
            detail = "the port is in use or the address is not here; choose with --grpc-port"
            raise AddressUnavailable(host, port, detail) from error
        await self._server.start()
        return bound

    def _most_connections(self) -> int:
        wanted, most = self._config.grpc_max_connections, grpc_places(self._config)
        if most < wanted:
            log.warning(
                "grpc_max_connections is %d, but this process may open no more files than for %d "
                "(ulimit -n): that is the limit",
                wanted,
                most,
            )
        return most

    def tell_change(self) -> None:
        """The state of the server or of a model may have changed."""
        self._health.tell_change()

    async def stop(self) -> int:
        """Say NOT_SERVING, take no new calls, let those in flight end within the time limit.

        Streams are not waited for until their clients have no more to send: what was read is
        answered, then they end with UNAVAILABLE. A client that does not read is not waited for
        either, once all is answered.

        Returns:
            Requests that were cut off.
        """
        for service in self._services:
            service.shell.drain.set()
        self.tell_change()
        if self._server is None:
            return 0
        limit_s = self._config.shutdown_timeout_s
        stopping = asyncio.ensure_future(self._server.stop(limit_s))
        began = working_by = time.monotonic()
        working = 0
        while not stopping.done():
            now = time.monotonic()
            if now < began + limit_s:  # after it grpc cancels what is left
                working = self._admission.working("grpc")
            if working:
                working_by = now
            elif now > working_by + WRITE_TIMEOUT_S:
                await self._server.stop(None)
            await asyncio.wait({stopping}, timeout=SETTLING_S)
        return working if time.monotonic() >= began + limit_s else 0
