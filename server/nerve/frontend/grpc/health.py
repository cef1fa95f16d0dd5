"""grpc.health.v1: whether the server, a service or a model answers, asked once or watched.

grpcio-health-checking's own servicer keeps a copy of all states, forgets none, and lets whoever watches
hold up the end of the server; so only its messages are used.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection
from typing import Final

import grpc
from grpc_health.v1 import health_pb2 as pb

from nerve.errors import ModelNotFound, NerveError, ServerBusy, ServerStopping
from nerve.exchange import Access, Exchanges
from nerve.frontend.grpc.calls import Bind, Shell, unary
from nerve.frontend.grpc.metadata import Context
from nerve.frontend.grpc.reading import Reader
from nerve.frontend.guard import Guard
from nerve.service.control import ControlService

UNKNOWN: Final[int] = pb.HealthCheckResponse.SERVICE_UNKNOWN
SERVING: Final[int] = pb.HealthCheckResponse.SERVING
NOT_SERVING: Final[int] = pb.HealthCheckResponse.NOT_SERVING
MAX_WATCHES: Final = 1024
"""Most calls of Watch at the same time."""


class HealthService:
    """Health of "" and of each service (does the server want traffic?), and of each model by name."""

    name = "grpc.health.v1.Health"

    def __init__(
        self,
        control: ControlService,
        services: Collection[str],
        exchanges: Exchanges,
        guard: Guard,
    ) -> None:
        """`services` are those whose health is the server's."""
        self._control, self._services = control, frozenset(services)
        self.shell = Shell("health-grpc", exchanges, guard)
        self._changed = asyncio.Event()
        self._watches = 0

    def methods(self) -> dict[str, Bind]:
        """What answers each method."""
        return {
            "Check": unary(
                pb.HealthCheckRequest, self._check, shell=self.shell, access=Access.OPEN
            ),
            # For grpc a stream of messages, so that we are asked before the one is read, and it
            # is not kept.
            "Watch": lambda path, reader: grpc.stream_stream_rpc_method_handler(
                functools.partial(self._watch, path, reader)
            ),
        }

    def tell_change(self) -> None:
        """A state may have changed: those who watch are told."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> int:
        if service == "" or service in self._services:
            serves = self._control.ready
        elif (state := self._control.states().get(service)) is not None:
            serves = state == "READY"
        else:
            return UNKNOWN
        return SERVING if serves and not self.shell.drain.is_set() else NOT_SERVING

    async def _check(self, request: pb.HealthCheckRequest, _context: Context, _size: int) -> bytes:
        status = self._status(request.service)
        if status == UNKNOWN:
            raise ModelNotFound(request.service, sorted(self._control.states()))
        return _written(status)

    async def _watch(self, path: str, reader: Reader, _messages: object, context: Context) -> None:
        with self.shell.reported(path, context) as exchange:
            exchange.counts = False  # how long somebody watches says nothing
            try:
                if self._watches >= MAX_WATCHES:
                    raise ServerBusy("calls of Watch", MAX_WATCHES)
                self._watches += 1
                try:
                    await self._tell(await self._asked(reader, context), context)
                finally:
                    self._watches -= 1
            except NerveError as error:
                await self.shell.abort(context, error)

    async def _asked(self, reader: Reader, context: Context) -> str:
        """Whose health is to be watched; nothing else of the message is kept."""
        body = await reader.read(pb.HealthCheckRequest, context, Access.OPEN)
        return str((await self.shell.parse(pb.HealthCheckRequest, body)).service)

    async def _tell(self, service: str, context: Context) -> None:
        """Write the status now and whenever it has changed. Raises ServerStopping in the end."""
        told: int | None = None
        while True:
            changed, status = self._changed, self._status(service)
            if status != told:
                await context.write(_written(status))
                told = status
            if self.shell.drain.is_set():
                raise ServerStopping
            await changed.wait()


def _written(status: int) -> bytes:
    return bytes(pb.HealthCheckResponse(status=status).SerializeToString())
