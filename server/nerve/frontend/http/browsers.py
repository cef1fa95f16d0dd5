"""What browsers are told: which pages may ask (CORS), and what to make of an answer; pages of others
that would change the server are refused.

A program that is no browser needs none of it: it sends no Origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import ForeignOrigin
from nerve.exchange import Access
from nerve.frontend.http.dialect import (
    MODEL_HEADER,
    REASON_HEADER,
    TRUNCATED_HEADER,
    VERSION_HEADER,
)
from nerve.frontend.http.origins import allowed, own_names
from nerve.frontend.http.plain_answers import ALWAYS

METHODS: Final = "GET, POST, DELETE"
EXPOSED: Final = ", ".join(
    (
        MODEL_HEADER, VERSION_HEADER, TRUNCATED_HEADER, REASON_HEADER,
        "x-request-id", "traceparent", "retry-after", "inference-header-content-length",
        "x-compute-type", "x-compute-time", "x-compute-characters", "x-compute-tokens",
        "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time",
    )
)  # fmt: skip
"""Headers of answers that a page may read."""
PREFLIGHT_S: Final = 600
_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1024}")


class Browsers:
    """The answers' headers, and answers to a browser's own questions."""

    def __init__(self, config: ServerConfig) -> None:
        self._origins: Sequence[str] = config.cors_allowed_origins
        self._own_names = own_names(config.http_hostname)
        self._always = dict(ALWAYS)
        if config.hsts_max_age_s is not None:
            self._always["Strict-Transport-Security"] = f"max-age={config.hsts_max_age_s}"

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has; a signal of aiohttp, just before it is sent."""
        self.mark(response)
        if not self._origins or "Access-Control-Allow-Origin" in response.headers:
            return
        if "*" in self._origins:
            response.headers["Access-Control-Allow-Origin"] = "*"
        else:
            response.headers.add("Vary", "Origin")
            origin = request.headers.get("Origin", "")
            if origin not in self._origins:
                return
            response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED

    def mark(self, response: web.StreamResponse) -> None:
        """Add those that do not depend on who asks."""
        response.headers["Server"] = self._always["Server"]  # aiohttp's is there already
        for name, value in self._always.items():
            response.headers.setdefault(name, value)

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks whether a page may ask; None: it is something else, or no
        page may."""
        if (
            request.method != "OPTIONS"
            or "Access-Control-Request-Method" not in request.headers
            or not ({"*", request.headers.get("Origin")} & {*self._origins})
        ):
            return None
        wanted = request.headers.get("Access-Control-Request-Headers", "")
        response = web.Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = METHODS
        if _NAMES.fullmatch(wanted):  # a page needs the key besides, so that none is kept out
            response.headers["Access-Control-Allow-Headers"] = wanted
            response.headers.add("Vary", "Access-Control-Request-Headers")
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)
        return response

    def refuse(self, request: web.Request, access: Access) -> None:
        """A form or script of another site can send a request, though not read the answer.

        Raises:
            ForeignOrigin: it would change the server.
        """
        origin = request.headers.get("Origin")
        if access is not Access.ADMIN or origin is None:
            return
        if not allowed(origin, request.host, names=self._own_names, more=self._origins):
            raise ForeignOrigin(origin)
