"""aiohttp's protocol, with answers of ours where it would write its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, InvalidURLError, LineTooLong

from nerve.errors import InvalidRequest, NerveError, ServerFault

FAULTS: Final[dict[type, str]] = {
    BadHttpMethod: "the request does not begin with a method of HTTP",
    InvalidURLError: "the target of the request is no path",
    LineTooLong: "the request line or a header is too long",
}
"""By what aiohttp raises. What the client sent is not repeated."""
NO_HTTP: Final = "the bytes are no request of HTTP: its first line, a header or a chunk is broken"
Answer = Callable[[web.BaseRequest, NerveError], web.Response]
"""Writes an answer to what no application has seen, and reports it."""


class Protocol(web.RequestHandler):
    """One connection of aiohttp's."""

    __slots__ = ("_answer",)

    def answer_with(self, answer: Answer) -> Protocol:
        """Have errors answered so."""
        self._answer = answer
        return self

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `aiohttp.web.RequestHandler.handle_error`: bytes that cannot be parsed, or a failure
        outside of the application."""
        super().handle_error(request, status, exc, message)  # logs; raises if an answer has begun
        if status == 400:
            error: NerveError = InvalidRequest(FAULTS.get(type(exc), NO_HTTP))
        else:
            error = ServerFault("the server failed; its log tells why")
        response = self._answer(request, error)
        response.force_close()
        return response
