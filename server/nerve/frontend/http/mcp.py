"""The route /mcp: refuses what must not reach the MCP SDK, and hands the rest to it.

Knows HTTP, and of MCP only what a message is; tools and sessions are in `frontend/mcp/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import NerveError, UnsupportedMediaType, shown
from nerve.exchange import Access, current
from nerve.frontend.http.asgi import Asgi, Message, Receive, Send, answer
from nerve.frontend.http.body import read_body
from nerve.frontend.http.dialect import (
    JSON,
    REASON_HEADER,
    Dialect,
    Route,
    error_headers,
    json_response,
)
from nerve.frontend.http.origins import allowed, own_names
from nerve.frontend.mcp import envelope
from nerve.frontend.mcp.sessions import OPENS
from nerve.frontend.status import outcome
from nerve.offload import INLINE_BYTES, offload

log = logging.getLogger(__name__)

PATH: Final = "/mcp"
SESSION_HEADER: Final = "Mcp-Session-Id"
INITIALIZE: Final = "initialize"
MAX_TOLD: Final = 100
"""Most web pages whose refusal is logged; each is once."""
FOREIGN_ORIGIN: Final = "foreign_origin"
CORS: Final = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Accept, Content-Type, Last-Event-ID, Mcp-Method, Mcp-Name, "
    "Mcp-Protocol-Version, Mcp-Session-Id",
    "Access-Control-Expose-Headers": "Mcp-Session-Id",
    "Access-Control-Max-Age": "600",
}


class McpDialect(Dialect):
    """POST, GET and DELETE of one path, and OPTIONS for browsers.

    Errors are JSON-RPC's.
    """

    name = "mcp"

    def __init__(self, app: Asgi, config: ServerConfig) -> None:
        """`app` is the SDK's ASGI application."""
        self._app, self._config = app, config
        self._names = own_names(config.http_hostname)
        self._draining = False
        self._listeners: set[asyncio.Event] = set()
        self._asked: dict[tuple[str, object], web.Request] = {}
        self._told: set[str] = set()

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("POST", PATH, self._post, Access.PREDICT, documented=False),
            Route("GET", PATH, self._stream, Access.PREDICT, documented=False),
            Route("DELETE", PATH, self._delete, Access.PREDICT, documented=False),
            Route("OPTIONS", PATH, self._preflight, Access.OPEN, documented=False),
        ]

    def drain(self) -> None:
        """End the streams that wait for what the server may have to say: it stops."""
        self._draining = True
        for listener in self._listeners:
            listener.set()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        _leave_uncounted()
        if refusal := self._refusal(request):
            return refusal
        content_type = request.headers.get("Content-Type", "")
        if content_type.split(";", 1)[0].strip().lower() != JSON:
            raise UnsupportedMediaType(content_type)
        body = await read_body(
            request,
            limit_bytes=self._config.max_body_bytes,
            timeout_s=self._config.body_timeout_s,
        )
        message = await offload(lambda: envelope.read(body), inline=len(body) <= INLINE_BYTES)
        with self._in_flight(request, message) as answered:
            opens = message.method == INITIALIZE and SESSION_HEADER not in request.headers
            app = self._watched(answered, opens=opens)
            response = await answer(app, request, body, headers=self._shared(request))
        if response.status == 503:  # no Retry-After: a session ends when its client likes
            response.headers[REASON_HEADER] = "too_many_sessions"
        return response

    @contextmanager
    def _in_flight(
        self, request: web.Request, message: envelope.Message
    ) -> Iterator[Callable[[], None]]:
        """Take note of a request of a session until the block ends, or what this gives is called.

        Raises:
            InvalidMessage: another one there has its id; the SDK would answer only one of the two.
        """
        asked = request.headers.get(SESSION_HEADER, ""), envelope.same_id(message.id)
        if message.method is None or message.id is None or not asked[0]:
            yield lambda: None
            return
        if asked in self._asked:
            raise envelope.in_use(message.id)

        def answered() -> None:
            if self._asked.get(asked) is request:  # and not one that came after the answer
                del self._asked[asked]

        self._asked[asked] = request
        try:
            yield answered
        finally:
            answered()

    def _watched(self, answered: Callable[[], None], *, opens: bool) -> Asgi:
        """The application, which knows only one way to write a type.

        Args:
            answered: is called when it sends its answer: the client has that before the stream ends.
            opens: whether the request asks for a session.
        """

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            async def sending(message: Message) -> None:
                if b"data: " in message.get("body", b"")[:256]:
                    answered()
                await send(message)

            scope["state"][OPENS] = opens
            scope["headers"] = [
                (name, JSON.encode() if name == b"content-type" else value)
                for name, value in scope["headers"]
            ]
            await self._app(scope, receive, sending)

        return app

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        _leave_uncounted()
        if self._draining:
            return self.fallback(503, "the server is shutting down")
        if refusal := self._refusal(request):
            return refusal
        left = asyncio.Event()
        self._listeners.add(left)
        try:
            return await answer(self._app, request, b"", left=left, headers=self._shared(request))
        finally:
            self._listeners.discard(left)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        _leave_uncounted()
        if refusal := self._refusal(request):
            return refusal
        return await answer(self._app, request, b"", headers=self._shared(request))

    async def _preflight(self, request: web.Request) -> web.StreamResponse:
        """A browser asks whether a page of another site may ask."""
        return self._refusal(request) or web.Response(status=204, headers=self._shared(request))

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a web page that may not ask; None for others, and for what is no browser."""
        origin = request.headers.get("Origin")
        more = self._config.mcp_allowed_origins
        if origin is None or allowed(origin, request.host, names=self._names, more=more):
            return None
        page = shown(origin)
        known = page in self._told or len(self._told) >= MAX_TOLD
        self._told |= set() if known else {page}
        level = logging.DEBUG if known else logging.WARNING
        log.log(level, "a request to /mcp from the web page %s was refused", page)
        message = (
            f"pages from {page} may not ask this server; its operator can allow it with "
            "NERVE_MCP_ALLOWED_ORIGINS"
        )
        body = envelope.body_of(envelope.INVALID_REQUEST, message, FOREIGN_ORIGIN)
        return json_response(body, status=403, headers={REASON_HEADER: FOREIGN_ORIGIN})

    def _shared(self, request: web.Request) -> dict[str, str]:
        """Headers by which the browser gives the answer to a page that the operator allows."""
        origin, more = request.headers.get("Origin"), self._config.mcp_allowed_origins
        if origin is None or not ("*" in more or origin in more):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} | CORS

    def counts(self, response: web.StreamResponse) -> bool:
        """Only refusals, ours and the SDK's: calls are counted where they are made, also over stdio,
        and how long a client listens says nothing."""
        return response.status >= 400 or REASON_HEADER in response.headers

    def error(self, error: NerveError) -> web.Response:
        """A JSON-RPC error."""
        body = envelope.error_body(error)
        return json_response(body, status=outcome(error).http, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """A JSON-RPC error."""
        body = envelope.body_of(envelope.INVALID_REQUEST, message, "not_served")
        return json_response(body, status=status)


def _leave_uncounted() -> None:
    """Have the request not counted unless `McpDialect.counts` says so of its answer: there may be none,
    and a call whose client leaves is counted where it was made."""
    if (exchange := current()) is not None:
        exchange.counts = False
