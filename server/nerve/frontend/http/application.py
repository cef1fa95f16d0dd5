"""The aiohttp application: dialects' routes, deployment prefixes, errors in the right shape."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, web

from nerve.errors import NerveError, ServerFault, shown
from nerve.exchange import Access, Exchange, Exchanges, clean_request_id
from nerve.frontend.admission import Admission
from nerve.frontend.guard import CREDENTIALS
from nerve.frontend.http.browsers import Browsers
from nerve.frontend.http.connection import answering
from nerve.frontend.http.dialect import ASYNC, REASON_HEADER, SYNC, Dialect, Handler, Route
from nerve.frontend.http.in_flight import ADMISSION, IN_FLIGHT, InFlight
from nerve.frontend.http.protocol import Answer
from nerve.frontend.http.quick_refusals import QuickRefusals

log = logging.getLogger(__name__)

PREFIXES: Final = tuple(dict.fromkeys((*SYNC, *ASYNC)))
"""All that can stand before a route's path."""
OPEN_INFERENCE: Final = re.compile(
    f"(?:{'|'.join(re.sub('{.*?}', '[^/]+', each) for each in SYNC)})/v2(?:/|$)"
)
"""Paths of the Open Inference Protocol, served or not: its errors have a shape of their own."""
REQUEST_ID: Final = "x-request-id"
ECHOED: Final = (REQUEST_ID, "x-baseten-customer-request-id")
"""Request headers that come back, so that logs of both sides can be joined."""


QUICK: Final = web.AppKey("quick", QuickRefusals)
UNREAD: Final[web.AppKey[Answer]] = web.AppKey("unread")
EXCHANGE: Final = web.RequestKey("exchange", Exchange)


class Routes:
    """Which dialect answers for a request, and what it takes to be answered."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._by_route: dict[web.AbstractRoute, tuple[Dialect, Route]] = {}
        self._by_name = {dialect.name: dialect for dialect in dialects}
        self._by_tail = {
            route.path.rpartition("/")[2]: dialect
            for dialect in dialects
            for route in dialect.routes()
            if dialect.name not in ("openinference", "playground")
        }

    def add_to(self, app: web.Application) -> None:
        """Register every route of every dialect, with each of its prefixes."""
        for dialect in self._by_name.values():
            for route in dialect.routes():
                for prefix in route.prefixes:
                    methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
                    for method in methods:
                        added = app.router.add_route(
                            method, prefix + route.path, _handler(route), expect_handler=_expects
                        )
                        self._by_route[added] = dialect, route

    @property
    def native(self) -> Dialect:
        """What answers where nothing else does."""
        return self._by_name["native"]

    def of(self, request: web.Request) -> tuple[Dialect, Access]:
        """By route; where none matches (404, 405), by what the path looks like."""
        match = self._by_route.get(request.match_info.route)
        if match is not None:
            dialect, route = match
            if route.when is None or route.when(request):
                return dialect, route.access
        found = None
        if OPEN_INFERENCE.match(request.path):
            found = self._by_name.get("openinference")
        if found is None:
            found = self._by_tail.get(request.path.rpartition("/")[2])
        if found is None and "/v1/" not in request.path:
            found = self._by_name.get("encoderfile")
        return found or self.native, Access.KNOWN


def build_app(
    dialects: Sequence[Dialect], exchanges: Exchanges, guard: Admission, browsers: Browsers
) -> web.Application:
    """The application.

    Args:
        dialects: `native`, which answers for unknown paths, as `openinference` and `encoderfile` do
            where they are among them.
        exchanges: requests are reported there.
        guard: says who may ask what, and when there is too much to do.
        browsers: says what web pages may do; of /mcp, its dialect does.
    """
    routes, in_flight = Routes(dialects), InFlight()

    @web.middleware
    async def report(request: web.Request, handler: Handler) -> web.StreamResponse:
        dialect, access = routes.of(request)
        # Two look-ups; the rest of the headers is for those who want them.
        headers = {name.lower(): value for name, value in request.headers.items()}
        for name in CREDENTIALS:
            if name in headers:
                headers[name] = "\n".join(request.headers.getall(name))
        with exchanges.open(_exchange(request, dialect, headers), headers) as exchange:

            async def admitted(request: web.Request) -> web.StreamResponse:
                if dialect.name != "mcp":
                    if (preflight := browsers.preflight(request)) is not None:
                        return preflight
                    browsers.refuse(request, access)
                if crowd is not None and access is not Access.OPEN:
                    raise crowd
                exchange.key = guard.admit(headers, access, exchange.peer)
                if "expect" in headers:
                    await _have_body_sent(request)
                return await handler(request)

            with in_flight, answering(request) as crowd:
                response = await _answered(request, admitted, dialect, exchange)
            _identify(response, headers, exchange)
            if in_flight.draining or crowd is not None:
                response.force_close()  # a client that keeps its connection finds another server
            exchange.status, exchange.counts = str(response.status), dialect.counts(response)
            exchange.sent_bytes = response.content_length or 0
            request[EXCHANGE] = exchange
        return response

    app = web.Application(middlewares=[report])
    app[IN_FLIGHT], app[ADMISSION] = in_flight, guard
    app[QUICK] = quick = QuickRefusals(exchanges, guard)

    async def learn(request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, web.Response) and (exchange := request.get(EXCHANGE)) is not None:
            quick.learn(request, response, exchange)

    def unread(request: web.BaseRequest, error: NerveError) -> web.Response:
        exchange = Exchange("http", routes.native.name, "", "", peer=request.remote or "")
        with exchanges.open(exchange, {}):
            response = routes.native.error(error)
            browsers.mark(response)
            exchange.status, exchange.reason = str(response.status), error.reason
        return response

    app[UNREAD] = unread
    app.on_response_prepare.append(browsers.prepare)
    app.on_response_prepare.append(learn)  # with all headers
    routes.add_to(app)
    return app


def _handler(route: Route) -> Handler:
    """That of the route, where it is there."""
    when, handler = route.when, route.handler
    if when is None:
        return handler

    async def perhaps(request: web.Request) -> web.StreamResponse:
        if not when(request):
            raise web.HTTPNotFound
        return await handler(request)

    return perhaps


async def _expects(request: web.Request) -> None:
    """In place of aiohttp's, which has every body sent, also of who may not ask."""


async def _have_body_sent(request: web.Request) -> None:
    """Answer `Expect: 100-continue`."""
    wanted = request.headers.get("Expect", "").lower() == "100-continue"
    if wanted and request.version >= HttpVersion11 and not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun with it


def _exchange(request: web.Request, dialect: Dialect, headers: dict[str, str]) -> Exchange:
    resource = request.match_info.route.resource
    exchange = Exchange(
        "http",
        dialect.name,
        request.method,
        "" if resource is None else resource.canonical,
        peer=request.remote or "",
        received_bytes=request.content_length or 0,
    )
    for name in ECHOED:
        if name in headers and (given := clean_request_id(headers[name])):
            exchange.request_id = given
            break
    return exchange


def _identify(response: web.StreamResponse, headers: dict[str, str], exchange: Exchange) -> None:
    """Have the answer tell by what its request is found in logs and traces."""
    if response.prepared:  # a stream, whose headers went out long ago
        return
    response.headers[REQUEST_ID] = exchange.request_id
    for name in ECHOED[1:]:
        if name in headers and (given := clean_request_id(headers[name])):
            response.headers[name] = given
    if exchange.traceparent:
        response.headers["traceparent"] = exchange.traceparent


async def _answered(
    request: web.Request, handler: Handler, dialect: Dialect, exchange: Exchange
) -> web.StreamResponse:
    """The answer; errors in the dialect's shape."""
    response: web.StreamResponse
    try:
        return await handler(request)
    except NerveError as error:
        exchange.reason = error.reason
        if isinstance(error, ServerFault):
            log.error("request failed: %s", error)
        response = dialect.error(error)
        if not request.content.is_eof() or request.content.exception() is not None:
            response.force_close()  # the rest of a refused body is not waited for
    except web.HTTPException as error:
        if error.status not in (404, 405):
            raise
        response = _unserved(request, error, dialect)
        exchange.reason = response.headers[REASON_HEADER]
    except Exception:  # boundary: one request must not take the connection down
        log.exception("request failed")
        fault = ServerFault("the server failed; its log tells why")
        exchange.reason = fault.reason
        response = dialect.error(fault)
    return response


def _unserved(
    request: web.Request, error: web.HTTPException, dialect: Dialect
) -> web.StreamResponse:
    if not isinstance(error, web.HTTPMethodNotAllowed):
        message = f"{shown(request.path)} is not served; see GET /docs"
        response = dialect.fallback(error.status, message)
        response.headers[REASON_HEADER] = "not_served"
        return response
    allowed = ",".join(sorted(error.allowed_methods))
    message = f"{shown(request.path)} does not take {request.method}; use {allowed}"
    response = dialect.fallback(error.status, message)
    response.headers["Allow"] = allowed
    response.headers[REASON_HEADER] = "method_not_allowed"
    return response
