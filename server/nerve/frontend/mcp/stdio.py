"""MCP over stdin and stdout: one client, which started this process.

The SDK reads stdin in a thread that nothing can call back, so that a signal could not end the process,
and drops what it has not answered when stdin ends. Here threads are left behind, and answers are not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from contextlib import suppress
from typing import Final, cast

import anyio
import orjson
from mcp.server.stdio import stdio_server

from nerve.errors import BodyTooLarge, InvalidRequest
from nerve.frontend.mcp import envelope
from nerve.frontend.mcp.pipes import Pipes
from nerve.frontend.mcp.server import McpServer

log = logging.getLogger(__name__)

READ_BYTES: Final = 64 * 1024


async def talk(server: McpServer, pipes: Pipes, *, stop: asyncio.Event) -> None:
    """Serve until stdin ends, the client stops reading, or `stop` is set.

    What was asked before is answered, within the time that requests in flight have when the server
    stops.
    """
    server.patient = True
    asked = _Asked()
    writer = _Writer(pipes.write_fd, asked)
    reader = _Reader(pipes.read_fd, writer, asked, server=server, stop=stop)
    # they have what the SDK uses of its files
    files = cast("tuple[anyio.AsyncFile[str], anyio.AsyncFile[str]]", (reader, writer))
    try:
        async with stdio_server(*files) as (received, to_send):
            options = server.sdk.create_initialization_options()
            await server.sdk.run(received, to_send, options)
    except* OSError as errors:
        log.info("the client has gone: %s", errors.exceptions[0])
    finally:
        reader.close()
        writer.close()


class _Asked:
    """Requests that are not answered yet."""

    def __init__(self) -> None:
        self._ids: set[object] = set()
        self._open = 0
        self._none = asyncio.Event()
        self._none.set()

    def received(self, message: envelope.Message) -> None:
        """Take note of a client's message.

        Raises:
            InvalidMessage: a request has the id of one that is not answered yet.
        """
        if message.method is None:
            return
        if message.id is not None:
            key = envelope.same_id(message.id)
            if key in self._ids:
                raise envelope.in_use(message.id)
            self._ids.add(key)
            self._open += 1
            self._none.clear()
        elif message.method == "notifications/cancelled":  # has no answer
            request_id = message.params.get("requestId")
            if envelope.is_id(request_id) and self.answering(request_id):
                self.answered()

    def answering(self, request_id: object) -> bool:
        """Whether this is the id of a request that waits; from now on it is free again."""
        key = envelope.same_id(request_id)
        waits = key in self._ids
        self._ids.discard(key)
        return waits

    def answered(self) -> None:
        """The answer is written, or there is none to come."""
        self._open -= 1
        if not self._open:
            self._none.set()

    async def none(self, timeout_s: float) -> None:
        """Wait until everything is answered, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none.wait()


class _Writer:
    """Lines out, in order. The caller waits until each is written."""

    def __init__(self, fd: int, asked: _Asked) -> None:
        self._fd, self._asked = fd, asked
        self._loop = asyncio.get_running_loop()
        self._lines: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._work, name="mcp stdout", daemon=True).start()

    async def write(self, text: str) -> None:
        """Write a message of the SDK. Raises OSError when nobody reads."""
        message = orjson.loads(text)
        settles = "method" not in message and self._asked.answering(message.get("id"))
        await self.put(text.encode())
        if settles:
            self._asked.answered()

    async def put(self, line: bytes) -> None:
        """Write all of it. Raises as `write`."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._lines.put((line, done))
        await done

    async def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """End the thread, when it has written what it was given."""
        self._lines.put(None)

    def _work(self) -> None:
        while (item := self._lines.get()) is not None:
            rest, done = item
            fault: OSError | None = None
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError as error:
                fault = error
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(_settle, done, fault)


def _settle(done: asyncio.Future[None], fault: OSError | None) -> None:
    if done.done():
        return
    if fault is not None:
        done.set_exception(fault)
    else:
        done.set_result(None)


class _Reader:
    """Lines in. What is no message, or over the limit, is answered with an error and left out."""

    def __init__(
        self, fd: int, writer: _Writer, asked: _Asked, *, server: McpServer, stop: asyncio.Event
    ) -> None:
        self._fd, self._writer, self._asked, self._server = fd, writer, asked, server
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._wanted = threading.Semaphore(0)
        self._buffer, self._skipping, self._ended = bytearray(), False, False
        self._stopping = asyncio.create_task(self._end_at(stop))
        threading.Thread(target=self._work, name="mcp stdin", daemon=True).start()

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> str:
        """The next message. Ends when the client has ended and all is answered."""
        while True:
            line = self._line()
            if line is not None:
                if await self._taken(line):
                    return line.decode()
                continue
            if self._ended:
                await self._asked.none(self._server.drain_s)
                raise StopAsyncIteration
            self._wanted.release()
            part = await self._parts.get()
            self._ended = not part
            if part is not None:  # else we stop, maybe amid a line
                self._buffer += part or b"\n"  # the last line may have no end

    def close(self) -> None:
        """Read nothing more."""
        self._stopping.cancel()

    def _line(self) -> bytes | None:
        """The next whole line, and of one that is too long its beginning, once; None: read on."""
        line, end, rest = self._buffer.partition(b"\n")
        if end:
            self._buffer = rest
            skipped, self._skipping = self._skipping, False
            return b"" if skipped else bytes(line)
        if len(line) > self._server.max_message_bytes:
            self._buffer.clear()
            skipped, self._skipping = self._skipping, True
            return b"" if skipped else bytes(line)
        return None

    async def _taken(self, line: bytes) -> bool:
        """Whether a line is a message for the SDK; else it is answered here, if it is not blank."""
        if not line.strip():
            return False
        try:
            if len(line) > self._server.max_message_bytes:
                raise BodyTooLarge(self._server.max_message_bytes, "message")
            self._asked.received(envelope.read(line))
        except InvalidRequest as error:
            await self._writer.put(orjson.dumps(envelope.error_body(error)) + b"\n")
            return False
        return True

    async def _end_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._parts.put_nowait(None)

    def _work(self) -> None:
        """Read when wanted, so that no more than one part waits."""
        part = b"."
        while part:
            self._wanted.acquire()
            try:
                part = os.read(self._fd, READ_BYTES)
            except OSError:
                part = b""
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._parts.put_nowait, part)
