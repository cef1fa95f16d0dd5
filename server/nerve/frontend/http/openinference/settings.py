"""Log and trace settings, and shared memory, which is not there (kserve-v2, section 6)."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from nerve.exchange import Access
from nerve.frontend.http.dialect import Handler, Route, json_response
from nerve.frontend.http.openinference import documents
from nerve.frontend.http.openinference.bodies import MODEL, Bodies
from nerve.frontend.http.openinference.errors import bad_where_unavailable
from nerve.frontend.v2.settings import Settings, refuse_shared_memory, shared_memory_status

MEMORIES: Final = {"system": "system", "cuda": "CUDA"}
"""Kinds of shared memory, as paths and as sentences have them."""


class SettingsRoutes:
    """What clients see and change of the running process."""

    def __init__(self, settings: Settings, bodies: Bodies) -> None:
        self._settings, self._bodies = settings, bodies

    def routes(self) -> list[Route]:
        """The log's, the traces', and those of both kinds of shared memory."""
        routes = [
            Route("GET", "/v2/logging", self._logging, Access.READ, documents.LOGGING),
            Route(
                "POST", "/v2/logging", self._change_logging, Access.ADMIN, documents.CHANGE_LOGGING
            ),
        ]
        for path, of in (("/v2", ""), (MODEL, "_of_model")):
            routes += [
                Route("GET", f"{path}/trace/setting", self._trace, Access.READ, documents.trace(of)),
                Route("POST", f"{path}/trace/setting", self._change_trace, Access.ADMIN,
                      documents.change_trace(of)),
            ]  # fmt: skip
        for kind, shown in MEMORIES.items():
            for path, of in (("", ""), ("/region/{region}", "_of_region")):
                base = f"/v2/{kind}sharedmemory{path}"
                routes += [
                    Route("GET", f"{base}/status", _status, Access.PREDICT,
                          documents.memory_status(kind, of)),
                    Route("POST", f"{base}/unregister", _unregister, Access.PREDICT,
                          documents.memory_unregister(kind, of)),
                ]  # fmt: skip
            routes.append(
                Route(
                    "POST",
                    f"{base}/register",
                    _refuse(shown),
                    Access.PREDICT,
                    documents.memory_register(kind),
                )
            )
        return routes

    async def _logging(self, _request: web.Request) -> web.Response:
        return json_response(self._settings.logging())

    async def _change_logging(self, request: web.Request) -> web.Response:
        asked = await self._bodies.members(request)
        return json_response(self._settings.change_logging(asked))

    async def _trace(self, request: web.Request) -> web.Response:
        with bad_where_unavailable():
            return json_response(self._settings.trace(request.match_info.get("model", "")))

    async def _change_trace(self, request: web.Request) -> web.Response:
        asked = await self._bodies.members(request)
        with bad_where_unavailable():
            model = request.match_info.get("model", "")
            return json_response(self._settings.change_trace(asked, model))


async def _status(_request: web.Request) -> web.Response:
    return json_response(shared_memory_status())


async def _unregister(_request: web.Request) -> web.Response:
    """Nothing is there, so nothing is left to do; clients do this before they begin."""
    return web.Response()


def _refuse(kind: str) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        refuse_shared_memory(kind)

    return handler
