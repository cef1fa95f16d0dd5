"""The routes that run models: infer, generate and generate_stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import web

from nerve.errors import NerveError, ServerFault
from nerve.exchange import Access
from nerve.frontend.http.call import timeout_s
from nerve.frontend.http.dialect import (
    JSON,
    MODEL_HEADER,
    TRUNCATED_HEADER,
    VERSION_HEADER,
    Route,
)
from nerve.frontend.http.openinference import documents
from nerve.frontend.http.openinference.bodies import PLACES, Bodies
from nerve.frontend.http.openinference.codec import (
    LENGTH_HEADER,
    Document,
    Form,
    json_length,
    raw_request,
    read_document,
    read_request,
    write_response,
)
from nerve.frontend.http.openinference.encodings import IDENTITY, SMALL_BYTES, choose, compress
from nerve.frontend.http.openinference.errors import error_response
from nerve.frontend.http.openinference.generate import as_event, read_generate, write_generated
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.frontend.v2.infer import InferRequest, Inferrer, InferResponse
from nerve.frontend.v2.views import resolve
from nerve.offload import INLINE_BYTES, offload
from nerve.service.inference import InferenceService

log = logging.getLogger(__name__)
T = TypeVar("T")

BINARY: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream; charset=utf-8"
INLINE_COMPRESSED_BYTES: Final = INLINE_BYTES // 4
"""Up to here compressing takes well under a millisecond."""


class _Place:
    """Whom a request is for, and since when it waits. `id` is known once the body is read."""

    def __init__(self, request: web.Request) -> None:
        self.arrived = time.monotonic()
        self.model: str = request.match_info["model"]
        self.version: str = request.match_info.get("version", "")
        self.id = ""


class InferRoutes:
    """infer, generate and generate_stream."""

    def __init__(self, inference: InferenceService, inferrer: Inferrer, bodies: Bodies) -> None:
        self._inference, self._inferrer, self._bodies = inference, inferrer, bodies

    def routes(self) -> list[Route]:
        """Of a model, and of its versions."""
        return [
            Route("POST", f"{path}/{verb}", handler, Access.PREDICT, documents.inference(verb, of))
            for path, of in PLACES
            for verb, handler in (
                ("infer", self._infer),
                ("generate", self._generate),
                ("generate_stream", self._generate_stream),
            )
        ]

    async def _infer(self, request: web.Request) -> web.Response:
        place = _Place(request)
        body = await self._bodies.tensors(request)

        async def answer() -> web.Response:
            asked, form = await self._asked(request, body, place)
            return await _answer(await self._run(request, asked, place), form, request)

        return await _told(answer, place)

    async def _asked(
        self, request: web.Request, body: bytes, place: _Place
    ) -> tuple[InferRequest, Form]:
        length = json_length(header := request.headers.get(LENGTH_HEADER), body)
        if length == 0 and header is not None:
            view = resolve(place.model, self._inference.knows).view
            self._inferrer.require(place.model, place.version)
            return raw_request(body, place.model, place.version, view)
        return await self._read(
            body, length, place, lambda document: read_request(document, place.model, place.version)
        )

    async def _generate(self, request: web.Request) -> web.Response:
        return await self._generated(request, JSON, lambda body: body)

    async def _generate_stream(self, request: web.Request) -> web.Response:
        """One event: every model here has one answer to a request."""
        return await self._generated(request, EVENTS, as_event)

    async def _generated(
        self, request: web.Request, kind: str, wrap: Callable[[bytes], bytes]
    ) -> web.Response:
        place = _Place(request)
        body = await self._bodies.tensors(request)

        async def answer() -> web.Response:
            view = resolve(place.model, self._inference.knows).view
            asked = await self._read(
                body,
                len(body),
                place,
                lambda document: read_generate(document, place.model, place.version, view),
            )
            response = await self._run(request, asked, place)
            written = await offload(
                lambda: wrap(write_generated(response)), inline=response.size <= INLINE_BYTES
            )
            return web.Response(body=written, headers=_headers(response) | {"Content-Type": kind})

        return await _told(answer, place)

    async def _read(
        self, body: bytes, length: int, place: _Place, read: Callable[[Document], T]
    ) -> T:
        """What `read` makes of a body with so many bytes of JSON, if there is somebody to answer."""
        self._bodies.check_json(length)
        inline = length <= INLINE_BYTES
        if not inline:  # without the request's id, but also without the work
            self._inferrer.require(place.model, place.version)

        def work() -> T:
            document = read_document(body, length)
            place.id = document.id
            if inline:
                self._inferrer.require(place.model, place.version)
            return read(document)

        return await offload(work, inline=inline)

    async def _run(self, request: web.Request, asked: InferRequest, place: _Place) -> InferResponse:
        headers = request.headers
        return await self._inferrer.infer(
            asked,
            arrived=place.arrived,
            timeout_s=timeout_s(headers, time.time()),
            priority=parse_priority(headers.get(PRIORITY_KEY), place="header"),
        )


async def _told(answer: Callable[[], Awaitable[web.Response]], place: _Place) -> web.Response:
    """What `answer` gives, or why it gives nothing, with the request's id."""
    try:
        return await answer()
    except NerveError as error:
        if isinstance(error, ServerFault):
            log.error("request failed: %s", error)
        return error_response(error, place.id)


async def _answer(response: InferResponse, form: Form, request: web.Request) -> web.Response:
    coding = choose(request.headers.get("Accept-Encoding"))
    headers = _headers(response)

    def write() -> bytes:
        body, length = write_response(response, form)
        headers["Content-Type"] = JSON if length is None else BINARY
        if length is not None:
            headers[LENGTH_HEADER] = str(length)
        if coding == IDENTITY or len(body) < SMALL_BYTES:
            return body
        headers["Content-Encoding"] = coding
        return compress(body, coding)

    most = INLINE_BYTES if coding == IDENTITY else INLINE_COMPRESSED_BYTES
    body = await offload(write, inline=response.size <= most)
    return web.Response(body=body, headers=headers)


def _headers(response: InferResponse) -> dict[str, str]:
    headers = {MODEL_HEADER: response.model, VERSION_HEADER: response.version}
    if response.truncated_texts:
        headers[TRUNCATED_HEADER] = str(response.truncated_texts)
    return headers
