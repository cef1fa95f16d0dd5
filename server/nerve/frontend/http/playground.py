"""The playground: a page for people, at / and with its files under /playground/.

Serves files and knows nothing else; what the page shows it asks of the same routes as everybody. The
files tell nothing of this server, so they need no key: a browser cannot send one with what is typed
into its address bar. The page asks for it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from aiohttp import web
from aiohttp.helpers import ETag

from nerve.errors import NerveError
from nerve.exchange import Access
from nerve.frontend.http.dialect import Dialect, Route

PAGE: Final = "index.html"
HTML: Final = "text/html"
TYPES: Final = {
    ".html": f"{HTML}; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Files with other endings are not served."""
HEADERS: Final = {
    # Nothing but what comes from here, within no page of others.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for again each time: never the page of an older server.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks for something to show: it names HTML, which no client of an API does."""
    if request.method not in ("GET", "HEAD"):
        return False
    for part in ",".join(request.headers.getall("Accept", [])).lower().split(","):
        kind, _, parameters = part.partition(";")
        weight = parameters.replace(" ", "").removeprefix("q=")
        if kind.strip() == HTML:
            return not weight or weight.strip("0.") != ""
    return False


class PlaygroundDialect(Dialect):
    """GET / for browsers, and /playground/{file}. For all others / is what it would be without."""

    name = "playground"

    def __init__(self, unknown: Dialect) -> None:
        """Reads the files, so that they are all of one version whatever becomes of the folder.

        Args:
            unknown: has the shape of errors; there is none but for files that are not there.
        """
        self._unknown = unknown
        folder = files("nerve.frontend.http") / "static" / "playground"
        self._files = {
            each.name: _read(each.read_bytes(), TYPES[ending])
            for each in folder.iterdir()
            if (ending := "." + each.name.rpartition(".")[2]) in TYPES
        }
        self._page = self._files.pop(PAGE)  # its links are relative to /

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("*", "/", self._index, Access.OPEN, documented=False, when=wants_page),
            Route("GET", "/playground/{file}", self._asset, Access.OPEN, documented=False),
        ]

    def error(self, error: NerveError) -> web.Response:
        """See `Dialect.error`."""
        return self._unknown.error(error)

    def fallback(self, status: int, message: str) -> web.Response:
        """See `Dialect.fallback`."""
        return self._unknown.fallback(status, message)

    async def _index(self, request: web.Request) -> web.Response:
        response = _answer(request, self._page)
        response.headers["Vary"] = "Accept"
        return response

    async def _asset(self, request: web.Request) -> web.Response:
        file = self._files.get(request.match_info["file"])
        if file is None:
            raise web.HTTPNotFound
        return _answer(request, file)


def _read(body: bytes, content_type: str) -> _File:
    return _File(body, content_type, hashlib.sha256(body).hexdigest()[:32])


def _answer(request: web.Request, file: _File) -> web.Response:
    """The file, or 304 if the browser has it."""
    known = {tag.value for tag in request.if_none_match or ()}
    if known & {file.etag, "*"}:
        response = web.Response(status=304, headers=HEADERS)
    else:
        response = web.Response(
            body=file.body, headers=HEADERS | {"Content-Type": file.content_type}
        )
    response.etag = ETag(value=file.etag)
    return response
