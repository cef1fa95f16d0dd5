"""The grpc.aio server: services, health, reflection, errors as status codes, draining."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nerve.errors import AddressUnavailable, NerveError, ServerFault
from nerve.frontend.status import outcome
from nerve.metrics import RequestMetrics

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # else two servers share a port and neither says so
)


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: NerveError,
    text: str,
    *,
    cause: Exception | None = None,
) -> NoReturn:
    """End a call with the status of `error`; faults of the server are logged."""
    if isinstance(error, ServerFault):
        log.error("request failed: %s", error, exc_info=cause)
    await context.abort(grpc.StatusCode[outcome(error).grpc], text)
    raise AssertionError("abort raises")  # pragma: no cover  grpc's stubs do not say so


@asynccontextmanager
async def observed(metrics: RequestMetrics, dialect: str) -> AsyncIterator[None]:
    """Count a call; its status is OK or ERROR."""
    began = time.monotonic()
    status = "OK"
    try:
        yield
    except BaseException:
        status = "ERROR"
        raise
    finally:
        metrics.observe_request(dialect, status, time.monotonic() - began)


class GrpcServer:
    """A listening server. `start`, `set_ready` when models come or go, then `stop`."""

    def __init__(
        self,
        handlers: Sequence[tuple[str, grpc.GenericRpcHandler[Any, Any]]],
        *,
        shutdown_timeout_s: float,
    ) -> None:
        """`handlers`: service names and what answers them."""
        self._handlers, self._timeout_s = handlers, shutdown_timeout_s
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in the stubs
        self._server: Any = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the kernel's choice for 0).

        Raises:
            AddressUnavailable.
        """
        self._server = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers([handler for _, handler in self._handlers])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [name for name, _ in self._handlers]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            bound = int(self._server.add_insecure_port(f"{host}:{port}"))
        except RuntimeError as error:
            detail = "the port is in use or the address is not here; choose with --grpc-port"
            raise AddressUnavailable(host, port, detail) from error
        await self._server.start()
        return bound

    async def set_ready(self, ready: bool) -> None:
        """Health says SERVING, or NOT_SERVING."""
        answers = health_pb2.HealthCheckResponse
        await self._tell(answers.SERVING if ready else answers.NOT_SERVING)

    async def _tell(self, status: int) -> None:
        for name in ("", *(name for name, _ in self._handlers)):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Say NOT_SERVING, take no new calls, let those in flight end within the time limit."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(self._timeout_s)
