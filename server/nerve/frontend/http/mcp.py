"""The route /mcp: refuses what must not reach the MCP SDK, and hands the rest to it.

Knows HTTP and nothing of MCP; tools and sessions are in `frontend/mcp/`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import (
    InvalidRequest,
    MalformedBody,
    NerveError,
    UnsupportedMediaType,
    shown,
)
from nerve.frontend.http.asgi import Asgi, answer
from nerve.frontend.http.body import read_body
from nerve.frontend.http.dialect import (
    REASON_HEADER,
    Dialect,
    Route,
    error_headers,
    json_response,
)
from nerve.frontend.http.origins import allowed, own_names
from nerve.frontend.status import RETRY_AFTER_S, outcome

log = logging.getLogger(__name__)

PATH: Final = "/mcp"
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INTERNAL_ERROR: Final = -32603
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

    Errors are JSON-RPC's, without the id of a request.
    """

    name = "mcp"

    def __init__(self, app: Asgi, config: ServerConfig) -> None:
        """`app` is the SDK's ASGI application."""
        self._app, self._config = app, config
        self._names = own_names(config.http_hostname)
        self._draining = False
        self._listeners: set[asyncio.Event] = set()

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("POST", PATH, self._post, documented=False),
            Route("GET", PATH, self._stream, documented=False),
            Route("DELETE", PATH, self._delete, documented=False),
            Route("OPTIONS", PATH, self._preflight, documented=False),
        ]

    def drain(self) -> None:
        """End the streams that wait for what the server may have to say: it stops."""
        self._draining = True
        for listener in self._listeners:
            listener.set()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        content_type = request.headers.get("Content-Type", "")
        if content_type.split(";", 1)[0].strip().lower() != "application/json":
            raise UnsupportedMediaType(content_type)
        body = await read_body(
            request,
            limit_bytes=self._config.max_body_bytes,
            timeout_s=self._config.body_timeout_s,
        )
        response = await answer(self._app, request, body, headers=self._shared(request))
        if response.status == 503:
            response.headers[REASON_HEADER] = "too_many_sessions"
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
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
        log.warning("a request to /mcp from the web page %s was refused", shown(origin))
        message = (
            f"pages from {shown(origin)} may not ask this server; its operator can allow it with "
            "NERVE_MCP_ALLOWED_ORIGINS"
        )
        body = _body(INVALID_REQUEST, message, FOREIGN_ORIGIN)
        return json_response(body, status=403, headers={REASON_HEADER: FOREIGN_ORIGIN})

    def _shared(self, request: web.Request) -> dict[str, str]:
        """Headers by which the browser gives the answer to a page that the operator allows."""
        origin, more = request.headers.get("Origin"), self._config.mcp_allowed_origins
        if origin is None or not ("*" in more or origin in more):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} | CORS

    def counts(self, response: web.StreamResponse) -> bool:
        """Only our own refusals: calls are counted where they are made, also over stdio, and how
        long a client listens says nothing."""
        return REASON_HEADER in response.headers

    def error(self, error: NerveError) -> web.Response:
        """A JSON-RPC error."""
        code = INVALID_REQUEST if isinstance(error, InvalidRequest) else INTERNAL_ERROR
        if isinstance(error, MalformedBody):
            code = PARSE_ERROR
        body = _body(code, str(error), error.reason)
        return json_response(body, status=outcome(error).http, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """A JSON-RPC error."""
        return json_response(_body(INVALID_REQUEST, message, "not_served"), status=status)


def _body(code: int, message: str, reason: str) -> dict[str, object]:
    error = {"code": code, "message": message, "data": {"reason": reason}}
    return {"jsonrpc": "2.0", "id": None, "error": error}
