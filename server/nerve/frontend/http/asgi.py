"""Serves one aiohttp request by an ASGI application; what the request means is not known here.

The body is read before, within the server's limits. aiohttp cancels the handler when the client
leaves; an application does not expect that and is told in ASGI's way, so that it ends as it likes to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from aiohttp import web

from nerve.exchange import current
from nerve.frontend.http.application import REQUEST_ID
from nerve.frontend.http.connection import SIGN

Message: TypeAlias = MutableMapping[str, Any]  # as ASGI has it
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

STREAM = b"text/event-stream"
COMMENT = b":\r\n\r\n"
"""In a stream of events: its readers skip it."""
LEAVING_S = 5.0
"""How long an application may take to end when its client has left."""
LEFT = "left"
"""Key of the request's state: an asyncio.Event that is set when nobody reads the answer any more."""
EXCHANGE = "exchange"
"""Likewise: the `nerve.exchange.Exchange` of the request."""


async def answer(
    app: Asgi,
    request: web.Request,
    body: bytes,
    *,
    left: asyncio.Event | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """What `app` makes of the request, streams included.

    Args:
        app: an ASGI 3 application for `http`.
        request: its body has been read.
        body: decoded, without a content encoding.
        left: is set when the client has left; setting it has `app` believe so.
        headers: of the answer, besides those that `app` gives it.
    """
    exchange = _Exchange(request, body, left or asyncio.Event(), headers or {})
    serving = asyncio.create_task(exchange.serve(app), name="asgi")
    try:
        await asyncio.shield(serving)
        return await exchange.response()
    except asyncio.CancelledError:
        exchange.left.set()
        await asyncio.wait({serving}, timeout=LEAVING_S)
        raise
    finally:
        exchange.left.set()
        serving.cancel()


class _Exchange:
    """The three things that an application is called with, for one request."""

    def __init__(
        self, request: web.Request, body: bytes, left: asyncio.Event, headers: Mapping[str, str]
    ) -> None:
        self._request, self._body, self.left, self._headers = request, body, left, headers
        self._exchange = current()
        self._given = False
        self._start: Message | None = None
        self._stream: web.StreamResponse | None = None
        self._whole: list[bytes] = []
        self._asking: asyncio.Task[None] | None = None

    async def serve(self, app: Asgi) -> None:
        """Run the application. Raises what it raises before its answer begins."""
        try:
            await app(self.scope(), self.receive, self.send)
        except Exception:
            if self._stream is None and not self.left.is_set():
                raise
            log.exception("an answer broke off")  # there can be no other one

    def scope(self) -> Message:
        request = self._request
        skipped = (b"content-encoding", b"content-length", b"transfer-encoding")
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": request.path,
            "raw_path": request.rel_url.raw_path.encode("ascii"),
            "query_string": request.rel_url.raw_query_string.encode("ascii"),
            "root_path": "",
            "headers": [
                *((name, value) for name, value in headers if name not in skipped),
                (b"content-length", b"%d" % len(self._body)),
            ],
            "client": None,
            "server": None,
            "state": {LEFT: self.left, EXCHANGE: self._exchange},
        }

    async def receive(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if any(
                name == b"content-type" and STREAM in value for name, value in message["headers"]
            ):
                self._stream = web.StreamResponse(status=message["status"])
                self._set_headers(self._stream)
                self._identify(self._stream)
                with suppress(ConnectionError):  # we are about to be cancelled
                    await self._stream.prepare(self._request)
                self._request[SIGN] = self._ask
            return
        if self._stream is None:
            self._whole.append(message.get("body", b""))
        elif part := message.get("body"):
            with suppress(ConnectionError):
                await self._stream.write(part)

    async def response(self) -> web.StreamResponse:
        """The answer, when the application has returned."""
        if self._stream is not None:
            with suppress(ConnectionError):
                await self._stream.write_eof()
            return self._stream
        if self._start is None:
            raise RuntimeError("the application sent no answer")
        whole = web.Response(status=self._start["status"], body=b"".join(self._whole))
        self._set_headers(whole)
        return whole

    def _ask(self) -> None:
        """Have the connection find out whether the client is still there."""
        self._asking = asyncio.create_task(self._comment())

    async def _comment(self) -> None:
        assert self._stream is not None
        with suppress(ConnectionError, RuntimeError):  # it has left, or has all of its answer
            await self._stream.write(COMMENT)

    def _identify(self, response: web.StreamResponse) -> None:
        """Have a stream tell by what its request is found: whoever does it for whole answers comes
        when its headers are out."""
        if (exchange := self._exchange) is not None:
            response.headers[REQUEST_ID] = exchange.request_id
            if exchange.traceparent:
                response.headers["traceparent"] = exchange.traceparent

    def _set_headers(self, response: web.StreamResponse) -> None:
        assert self._start is not None
        response.headers.popall("Content-Type", None)
        for name, value in self._start["headers"]:
            if name not in (b"connection", b"content-length"):  # aiohttp's own affair
                response.headers.add(name.decode("latin-1").title(), value.decode("latin-1"))
        response.headers.update(self._headers)
