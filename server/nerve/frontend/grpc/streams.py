"""The shell of bidirectional streams: messages are worked on side by side, answers go out in order."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import grpc

from nerve.errors import NerveError, ServerStopping
from nerve.exchange import Access
from nerve.frontend.grpc.calls import (
    WELL,
    Bind,
    Method,
    RequestT,
    Shell,
    left_by_its_client,
)
from nerve.frontend.grpc.metadata import Context, identity
from nerve.frontend.grpc.reading import EOF, Reader


def stream(
    message: type[RequestT],
    answer: Method[RequestT],
    *,
    shell: Shell,
    in_flight: int,
    access: Access,
    weight: Callable[[RequestT, int], int] = lambda *_: 1,
    told: Callable[[RequestT], Callable[[str], str]] = lambda _: str,
) -> Bind:
    """A bidirectional stream with one answer a message.

    Args:
        message: what is sent.
        answer: makes the answer to one message; a NerveError from it ends the stream with its
            status, when all before it is answered. So does a message that cannot be parsed.
        shell: of the service.
        in_flight: how much may be read that is not answered yet, in units of `weight`; what is
            more than that alone is worked on alone. Nothing is read meanwhile.
        access: what it takes to be answered; asked for each message.
        weight: of a message and its size in bytes.
        told: see `calls.unary`.
    """

    async def serve(path: str, reader: Reader, _messages: object, context: Context) -> None:
        way = _Way(path, reader, shell, access, in_flight)
        await _Stream(message, answer, way, weight, told, context).run()

    return lambda path, reader: grpc.stream_stream_rpc_method_handler(
        functools.partial(serve, path, reader)
    )


class Refusal(bytes):
    """An answer that tells of a failure: sent like any other, but counted as what it is."""


class _Way(NamedTuple):
    """What a stream is given that says nothing of its messages."""

    path: str
    reader: Reader
    shell: Shell
    access: Access
    in_flight: int


class _Item(NamedTuple):
    """A message at work; `told` makes the text of an error from what the shell says."""

    work: asyncio.Task[bytes]
    weight: int
    told: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more is read: because of `error`, or because the client has no more to send."""

    error: Exception | None


class _Stream(Generic[RequestT]):
    """One stream. The reader makes a task of each message, the writer sends what they give."""

    def __init__(
        self,
        message: type[RequestT],
        answer: Method[RequestT],
        way: _Way,
        weight: Callable[[RequestT, int], int],
        told: Callable[[RequestT], Callable[[str], str]],
        context: Context,
    ) -> None:
        self._message, self._answer, self._context = message, answer, context
        self._way, self._weight, self._told = way, weight, told
        self._shell, self._in_flight = way.shell, way.in_flight
        self._read_so_far: asyncio.Queue[_Item | _End] = asyncio.Queue()
        self._held = 0
        self._sent = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client has no more to send, or leaves, or the server stops."""
        await self._shell.turn_away(self._way.path, self._context, self._way.access)
        self._context.set_trailing_metadata(identity(self._context))
        reader = asyncio.create_task(self._read())
        drain = asyncio.create_task(self._shell.drain.wait())
        drain.add_done_callback(lambda _: reader.cancel())
        try:
            await self._write()
        finally:  # a client that left costs nothing more
            left: list[asyncio.Task[Any]] = [drain, reader]
            while not self._read_so_far.empty():
                if not isinstance(item := self._read_so_far.get_nowait(), _End):
                    left.append(item.work)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self) -> None:
        end = _End(ServerStopping())  # where `run` cancels this
        try:
            while (body := await self._context.read()) is not EOF:
                began = time.monotonic()
                request = await self._shell.parse(self._message, body)
                weight = self._weight(request, len(body))
                await self._room(self._in_flight - weight)
                self._held += weight
                work = asyncio.create_task(self._work(request, len(body), began))
                self._read_so_far.put_nowait(_Item(work, weight, self._told(request)))
                del body, request  # nobody else is waited for with them in hand
                await self._room(self._in_flight - 1)
            end = _End(None)
        except Exception as error:  # noqa: BLE001  boundary: the writer tells the client
            end = _End(error)
        finally:
            self._read_so_far.put_nowait(end)

    async def _room(self, most: int) -> None:
        """Wait until at most so much is held, or nothing."""
        while self._held > max(most, 0):
            self._sent.clear()
            await self._sent.wait()

    async def _work(self, request: RequestT, size: int, began: float) -> bytes:
        with self._shell.reported(self._way.path, self._context, began=began) as exchange:
            exchange.received_bytes = size
            try:
                self._shell.admit(exchange, self._context, self._way.access)
                self._way.reader.hold(size)
                written = await self._answer(request, self._context, size)
            except NerveError as error:
                exchange.reason, exchange.code = error.reason, self._shell.code(error).name
                raise
            exchange.sent_bytes = len(written)
            if not isinstance(written, Refusal):
                exchange.status = WELL
            return bytes(written)  # grpc takes nothing derived of it

    async def _write(self) -> None:
        while not isinstance(item := await self._read_so_far.get(), _End):
            try:
                written = await item.work
            except asyncio.CancelledError:
                if left_by_its_client():
                    raise
                await self._shell.abort(self._context, ServerStopping())
            except Exception as error:  # noqa: BLE001  boundary: one stream must not end the connection
                await self._shell.abort(self._context, error, told=item.told)
            await self._context.write(written)
            self._held -= item.weight
            self._sent.set()
        if item.error is not None:
            await self._shell.abort(self._context, item.error)
