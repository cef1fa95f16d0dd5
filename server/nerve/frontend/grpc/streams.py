"""The shell of bidirectional streams: messages are worked on side by side, answers go out in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

import grpc

from nerve.errors import ServerStopping
from nerve.frontend.grpc.calls import Context, Handler, RequestT, Shell

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs


def stream(
    message: type[RequestT],
    answer: Callable[[RequestT, Context], Awaitable[bytes]],
    *,
    shell: Shell,
    in_flight: int,
    weight: Callable[[RequestT], int] = lambda _: 1,
) -> Handler:
    """A handler of a bidirectional stream with one answer a message.

    Args:
        message: what is sent.
        answer: makes the answer to one message; a NerveError from it ends the stream with its
            status, when all before it is answered. So does a message that cannot be parsed.
        shell: of the service.
        in_flight: how much may be read that is not answered yet, in units of `weight`; what is
            more than that alone is worked on alone. Nothing is read meanwhile.
        weight: of a message.
    """

    async def serve(_messages: object, context: Context) -> None:
        await _Stream(message, answer, shell, in_flight, weight, context).run()

    return grpc.stream_stream_rpc_method_handler(serve)


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more is read: because of `error`, or because the client has no more to send."""

    error: Exception | None


class _Stream(Generic[RequestT]):
    """One stream. The reader makes a task of each message, the writer sends what they give."""

    def __init__(
        self,
        message: type[RequestT],
        answer: Callable[[RequestT, Context], Awaitable[bytes]],
        shell: Shell,
        in_flight: int,
        weight: Callable[[RequestT], int],
        context: Context,
    ) -> None:
        self._message, self._answer, self._shell, self._context = message, answer, shell, context
        self._in_flight, self._weight = in_flight, weight
        self._read_so_far: asyncio.Queue[tuple[asyncio.Task[bytes], int] | _End] = asyncio.Queue()
        self._held = 0
        self._sent = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client has no more to send, or leaves, or the server stops."""
        reader = asyncio.create_task(self._read())
        drain = asyncio.create_task(self._shell.drain.wait())
        drain.add_done_callback(lambda _: reader.cancel())
        try:
            await self._write()
        finally:  # a client that left costs nothing more
            left: list[asyncio.Task[Any]] = [drain, reader]
            while not self._read_so_far.empty():
                if not isinstance(item := self._read_so_far.get_nowait(), _End):
                    left.append(item[0])
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _read(self) -> None:
        end = _End(ServerStopping())  # where `run` cancels this
        try:
            while (body := await self._context.read()) is not EOF:
                began = time.monotonic()
                request = await self._shell.parse(self._message, body)
                weight = self._weight(request)
                await self._room(self._in_flight - weight)
                self._held += weight
                work = asyncio.create_task(self._work(request, began))
                self._read_so_far.put_nowait((work, weight))
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

    async def _work(self, request: RequestT, began: float) -> bytes:
        well = False
        try:
            written = await self._answer(request, self._context)
            well = True
            return written
        finally:
            self._shell.observe(began, well=well)

    async def _write(self) -> None:
        while not isinstance(item := await self._read_so_far.get(), _End):
            work, weight = item
            try:
                written = await work
            except Exception as error:  # noqa: BLE001  boundary: one stream must not end the connection
                await self._shell.abort(self._context, error)
            await self._context.write(written)
            self._held -= weight
            self._sent.set()
        if item.error is not None:
            await self._shell.abort(self._context, item.error)
