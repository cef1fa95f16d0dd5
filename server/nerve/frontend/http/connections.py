"""Connections of HTTP: how many there may be, and how long each may take to send, to read, to idle.

aiohttp has a time limit for idle connections and none for slow ones, and takes any number; so each of
its protocols is served through one of ours, which only looks at what comes by.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, cast

import orjson
from aiohttp import HttpVersion11, StreamReader, web

from nerve.errors import ServerBusy
from nerve.frontend.http.dialect import error_headers
from nerve.frontend.http.quick_refusals import QuickRefusals

log = logging.getLogger(__name__)

RESERVE: Final = 64
"""Connections over the limit that are looked at: probes on them are answered, all else is refused."""
RESERVE_S: Final = 1.0
"""How long such a one may take to ask."""
LINGER_S: Final = 0.5
"""How long a client that was refused may take to read why."""
EVICT_S: Final = 1.0
"""How long a connection must have been idle to make room for another."""
LOOK_S: Final = 0.02
"""After a client has sent its last byte: when it is first looked whether it is still there."""
PROBE_S: Final = 0.1
"""How often it is looked again."""
ROUND: Final = 500
"""Connections that are looked after in one turn of the event loop."""
END: Final = b"\r\n\r\n"
PROCESSING: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Times(NamedTuple):
    """Limits in seconds, see the settings of these names."""

    head_s: float
    write_s: float
    keepalive_s: float


class Connection(asyncio.Protocol):
    """One connection: hands everything on to aiohttp's protocol."""

    __slots__ = (
        "_after", "_all", "_behind", "_head_bytes", "_inner", "_joined", "_refused", "_rest", "_seen",
        "_tail", "_whole", "extra", "request", "since", "started", "transport", "unread_since",
        "used",
    )  # fmt: skip

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner, self._all = inner, connections
        self.transport: asyncio.Transport | None = None
        self.request: web.BaseRequest | None = None
        """That is being answered."""
        self.extra = False
        """It is over the limit."""
        self.used = False
        """A request of it was answered."""
        self.since = 0.0
        """Since when it has been without a request, monotonic seconds."""
        self.started = 0.0
        """When the first byte of its next request came; 0 if none did."""
        self.unread_since = 0.0
        """Since when something has waited for the client to read it; 0 if nothing does."""
        self._head_bytes = 0  # of its next request that have come
        self._tail = b""  # the last of them
        self._whole = False  # whether they are all
        self._after = 0  # bytes that have come behind it
        self._behind = False  # whether the one after it has begun to come
        self._rest: StreamReader | None = (
            None  # of the body of one that was answered before it came
        )
        self._seen = False  # whether a client that sends no more was asked for a sign of life
        self._joined = False  # whether aiohttp knows of it
        self._refused = False  # what comes is dropped

    @property
    def pending(self) -> bool:
        """Whether the head of a request has come that nobody works on yet."""
        return self.request is None and self._whole

    @property
    def excess(self) -> ServerBusy | None:
        """What its requests are refused with, if it is over the limit."""
        return ServerBusy("connections", self._all.limit) if self.extra else None

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol.connection_made`."""
        self.transport = cast("asyncio.Transport", transport)
        self.since = time.monotonic()
        self._joined = self._all.take(self)
        if self._joined:
            self._inner.connection_made(transport)
        else:
            self.refuse(self._all.refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol.connection_lost`."""
        self.transport = None
        self._all.release(self)
        if self._joined:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        if self._refused:
            return
        if self._rest is not None and self._rest.is_eof():
            self._rest = None
        if self.request is None and not self._whole and self._rest is None:
            if not self.started and not self.extra and self._quickly_refused(data):
                return
            if not self._takes(data):
                self.refuse(TOO_LARGE)
                return
        if self.request is not None:
            self._behind = self._behind or self.request.content.is_eof()
        self._inner.data_received(data)

    def eof_received(self) -> bool:
        """Whether the connection stays open to be written to.

        A client that sends no more looks the same whether it waits for its answer or has left, until
        something is sent to it: if it has left, that is refused.
        """
        assert self.transport is not None
        tls = self.transport.get_extra_info("sslcontext") is not None
        if tls or not (self.pending or self.request is not None):
            return False
        asyncio.get_running_loop().call_later(LOOK_S, self._look)
        return True

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol.pause_writing`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol.resume_writing`."""
        self._inner.resume_writing()

    # What the application calls

    def begin(self, request: web.BaseRequest) -> None:
        """A request is worked on from now."""
        self.request = request
        body = request.content_length
        self._behind = request.content.is_eof() and body is not None and self._after > body
        self._tail, self._head_bytes, self._after, self._whole = b"", 0, 0, False
        self.started, self._rest = 0.0, None
        self._all.idle.pop(self, None)

    def end(self) -> None:
        """Its answer is there, though perhaps not sent yet."""
        request, self.request, self.used, self._seen = self.request, None, True, False
        if request is not None and not request.content.is_eof():
            self._rest = request.content
        self.since = time.monotonic()
        self.started = self.since if self._behind else 0.0
        if self.transport is not None and not self.extra:
            self._all.idle[self] = None

    # What time calls

    def check(self, now: float, times: Times) -> None:
        """Close it if the client is too slow."""
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() == 0:
            self.unread_since = 0.0
        elif not self.unread_since:
            self.unread_since = now
        elif now - self.unread_since > times.write_s:
            self.transport.abort()
            return
        if self.request is not None or self._refused or self.transport.is_closing():
            return
        if self.started and now - self.started > times.head_s:
            self.refuse(TOO_SLOW)
        elif not self.used and now - self.since > (RESERVE_S if self.extra else times.head_s):
            self.close()

    def close(self) -> None:
        """End it once what was written is sent."""
        if self.transport is not None:
            self.transport.close()

    def _takes(self, data: bytes) -> bool:
        """Take note of bytes of a head. False if it is too large."""
        if not self._head_bytes:
            data = data.lstrip(b"\r\n")  # are skipped before a request
            if not data:
                return True
            self.started = time.monotonic()
        end = (self._tail + data).find(END)
        self._whole = end >= 0
        if self._whole:
            self._after = len(self._tail) + len(data) - end - len(END)
        size = self._head_bytes + (end - len(self._tail) if self._whole else len(data))
        self._head_bytes += len(data)
        self._tail = (self._tail + data[-3:])[-3:]
        return size <= self._all.max_header_bytes

    def _quickly_refused(self, data: bytes) -> bool:
        """Answer a request that was refused a moment ago as it was then."""
        # aiohttp, which does not see this one, takes the connection for idle and closes it in time:
        # so it gets one to see now and then.
        if time.monotonic() - self.since > self._all.times.keepalive_s / 4:
            return False
        assert self.transport is not None
        peer = self.transport.get_extra_info("peername")
        answer = self._all.quick.answer(data, str(peer[0]) if isinstance(peer, tuple) else "")
        if answer is None:
            return False
        self.transport.write(answer)
        self.used = True
        return True

    def refuse(self, answer: bytes) -> None:
        """Say so and hang up; what the client still sends is dropped for a while, or it would lose
        the answer."""
        assert self.transport is not None
        self._refused = True
        self.transport.write(answer)
        if self._all.lingers(self) and self.transport.can_write_eof():
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self.hang_up)
        else:
            self.transport.close()

    def hang_up(self) -> None:
        """End it, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def _look(self) -> None:
        """See whether a client that sends no more has left."""
        if self.transport is None:
            return
        answered = self.request is None and not self.pending
        if answered and time.monotonic() - self.since > LOOK_S:
            self.close()
            return
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        if raw is not None and raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in GONE:
            self.transport.abort()
            return
        request = self.request
        if not self._seen and request is not None and not _begun(request):
            self._seen = True
            if request.version >= HttpVersion11:  # an older one would take it for the answer
                self.transport.write(PROCESSING)
        asyncio.get_running_loop().call_later(PROBE_S, self._look)


@contextmanager
def answering(request: web.BaseRequest) -> Iterator[ServerBusy | None]:
    """Put this around the work of a request; gives what it is refused with if its connection is one
    too many."""
    transport = request.transport
    protocol = None if transport is None else transport.get_protocol()
    if not isinstance(protocol, Connection):
        yield None
        return
    protocol.begin(request)
    try:
        yield protocol.excess
    finally:
        protocol.end()


def _begun(request: web.BaseRequest) -> bool:
    """Whether some of its answer is sent."""
    return request.writer.output_size > 0


class Connections:
    """All connections of a server, and their limits."""

    def __init__(
        self,
        inner: Callable[[], asyncio.Protocol],
        *,
        limit: int,
        times: Times,
        max_header_bytes: int,
        quick: QuickRefusals,
    ) -> None:
        self._new_inner, self.limit, self.times = inner, limit, times
        self.max_header_bytes, self.quick = max_header_bytes, quick
        self.idle: dict[Connection, None] = {}
        """Those without a request, longest first."""
        self._every: set[Connection] = set()
        self._extra: dict[Connection, None] = {}
        self._lingering: set[Connection] = set()
        fault = ServerBusy("connections", limit)
        self.refusal = _answer("503 Service Unavailable", str(fault), error_headers(fault))

    @property
    def count(self) -> int:
        """Connections that are open, those that are being refused left out."""
        return len(self._every) + len(self._extra)

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self._new_inner(), self)

    def unsettled(self, *, silent: bool) -> bool:
        """Whether a client is about to ask, or has an answer to read; with `silent` also those count
        that have connected and not said anything."""
        return any(
            each.started
            or (silent and not each.used)
            or (each.transport is not None and each.transport.get_write_buffer_size())
            for each in self.every()
        )

    def every(self) -> Iterable[Connection]:
        """All that are looked at."""
        return [*self._every, *self._extra]

    def hang_up(self) -> None:
        """End all of them, whatever they wait for."""
        for connection in self.every():
            connection.hang_up()

    def take(self, new: Connection) -> bool:
        """Find a place for a connection. False: there is none, not even to say so in its dialect."""
        if len(self._every) >= self.limit:
            self._evict(new.since)
        if len(self._every) < self.limit:
            self._every.add(new)
            self.idle[new] = None
            return True
        if len(self._extra) >= RESERVE and not self._give_up():
            return False
        new.extra = True
        self._extra[new] = None
        return True

    def release(self, gone: Connection) -> None:
        """A connection has ended, or is about to."""
        self.idle.pop(gone, None)
        self._every.discard(gone)
        self._extra.pop(gone, None)
        self._lingering.discard(gone)

    def lingers(self, refused: Connection) -> bool:
        """Whether a connection may be kept for a while after it was refused."""
        if len(self._lingering) >= RESERVE:
            return False
        self._lingering.add(refused)
        return True

    def _give_up(self) -> bool:
        """Refuse the one over the limit that has not asked for longest. Whether there is one."""
        silent = next((each for each in self._extra if not (each.pending or each.request)), None)
        if silent is None:
            return False
        self.release(silent)
        silent.refuse(self.refusal)
        return True

    def _evict(self, now: float) -> None:
        """Close the connection that has been idle for longest."""
        victim = next(iter(self.idle), None)
        if victim is None or now - victim.since < EVICT_S or victim.pending:
            return
        self.release(victim)
        victim.hang_up()

    async def watch(self) -> None:
        """Close what is too slow, until cancelled."""
        pause_s = min(1.0, min(*self.times, RESERVE_S) / 4)
        while True:
            await asyncio.sleep(pause_s)
            every = list(self.every())
            for start in range(0, len(every), ROUND):
                now = time.monotonic()
                for connection in every[start : start + ROUND]:
                    connection.check(now, self.times)
                await asyncio.sleep(0)


def _answer(status: str, message: str, headers: dict[str, str]) -> bytes:
    """An answer for a client whose request nobody has read, the end of its connection."""
    body = orjson.dumps({"error": message})
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode() + END + body


TOO_SLOW: Final = _answer("408 Request Timeout", "the head of the request did not come in time", {})
TOO_LARGE: Final = _answer(
    "431 Request Header Fields Too Large", "the head of the request is too large", {}
)
