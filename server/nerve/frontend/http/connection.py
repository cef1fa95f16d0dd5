"""One connection of HTTP: how long it may take to send, to read, to idle.

aiohttp has a time limit for idle connections and none for slow ones; so each of its protocols is
served through one of ours, which only looks at what comes by.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from aiohttp import HttpVersion11, StreamReader, web

from nerve.errors import ServerBusy
from nerve.frontend.http.plain_answers import END, TOO_LARGE, TOO_SLOW

if TYPE_CHECKING:
    from nerve.frontend.http.connections import Connections

RESERVE_S: Final = 1.0
"""How long one over the limit may take to ask."""
LINGER_S: Final = 0.5
"""How long a client that was refused may take to read why."""
LOOK_S: Final = 0.02
"""After a client has sent its last byte: when it is first looked whether it is still there."""
PROBE_S: Final = 0.1
"""How often it is looked again."""
PROCESSING: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)

SIGN: Final[web.RequestKey[Callable[[], None]]] = web.RequestKey("sign")
"""Writes something into an answer that has begun which its client ignores, if there is such a thing."""


class Times(NamedTuple):
    """Limits in seconds, see the settings of these names."""

    head_s: float
    write_s: float
    keepalive_s: float


class Connection(asyncio.Protocol):
    """One connection: hands everything on to aiohttp's protocol."""

    __slots__ = (
        "_after", "_all", "_behind", "_body", "_head_bytes", "_inner", "_joined", "_refused", "_rest",
        "_seen", "_tail", "_whole", "extra", "request", "since", "started", "transport", "unread_since",
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
        self._after = 0  # bytes that have come behind it, its body with them
        self._body: int | None = 0  # how many of them are its body, where it says so
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
        elif self.request is not None or self._whole:
            self._after += len(data)
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
        self._behind, self._body = False, request.content_length
        if not request.body_exists:
            self._body = 0
        self._tail, self._head_bytes, self._whole = b"", 0, False
        self.started, self._rest = 0.0, None
        self._all.idle.pop(self, None)

    def end(self) -> None:
        """Its answer is there, though perhaps not sent yet."""
        request, self.request, self.used, self._seen = self.request, None, True, False
        if request is not None and not request.content.is_eof():
            self._rest = request.content
        self.since = time.monotonic()
        behind = self._behind or (self._body is not None and self._after > self._body)
        self.started, self._after = (self.since if behind else 0.0), 0
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
        if request is not None and not request.content.is_eof():
            self.transport.abort()  # half a body, and the rest will not come
            return
        if not self._seen and request is not None:
            self._seen = True
            if _begun(request):
                request.get(SIGN, _nothing)()
            elif request.version >= HttpVersion11:  # an older one would take it for the answer
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


def _nothing() -> None:
    """Of most answers there is nothing that a client would ignore."""


def _begun(request: web.BaseRequest) -> bool:
    """Whether some of its answer is sent."""
    return request.writer.output_size > 0
