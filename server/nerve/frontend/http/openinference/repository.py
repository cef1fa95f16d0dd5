"""The model repository extension: index, load and unload (kserve-v2, section 4)."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from nerve.errors import BodyTooLarge, InvalidField
from nerve.exchange import Access
from nerve.frontend.http.dialect import Route, json_response
from nerve.frontend.http.openinference import documents
from nerve.frontend.http.openinference.bodies import Bodies
from nerve.frontend.http.openinference.schemas import (
    ModelLoadRequest,
    ModelUnloadRequest,
    RepositoryIndexRequest,
)
from nerve.frontend.v2.repository import (
    FILES_REFUSED,
    check_repository,
    index,
    load,
    unload,
)
from nerve.service.control import ControlService

MODEL: Final = "/v2/repository/models/{model}"
NAMED: Final = "/v2/repository/{repository}"


class RepositoryRoutes:
    """What is loaded, and loading and unloading it."""

    def __init__(self, control: ControlService, bodies: Bodies) -> None:
        self._control, self._bodies = control, bodies

    def routes(self) -> list[Route]:
        """With a repository's name, too: the index ignores it, the others are refused."""
        named = f"{NAMED}/models/{{model}}"
        return [
            Route("POST", "/v2/repository/index", self._index, Access.READ, documents.index()),
            Route(
                "POST",
                f"{NAMED}/index",
                self._index,
                Access.READ,
                documents.index("_of_repository"),
            ),
            Route("POST", f"{MODEL}/load", self._load, Access.ADMIN, documents.LOAD),
            Route("POST", f"{MODEL}/unload", self._unload, Access.ADMIN, documents.UNLOAD),
            Route(
                "POST", f"{named}/load", self._refuse, Access.ADMIN, documents.of_repository("load")
            ),
            Route(
                "POST",
                f"{named}/unload",
                self._refuse,
                Access.ADMIN,
                documents.of_repository("unload"),
            ),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        asked = await self._bodies.checked(request, RepositoryIndexRequest)
        return json_response(await index(self._control, ready=asked.ready))

    async def _load(self, request: web.Request) -> web.Response:
        try:
            asked = await self._bodies.checked(request, ModelLoadRequest)
        except BodyTooLarge as error:
            # what makes such a body large is files in it
            raise InvalidField("", f"{error}; {FILES_REFUSED}") from error
        await load(self._control, request.match_info["model"], asked.parameters)
        return web.Response()

    async def _unload(self, request: web.Request) -> web.Response:
        asked = await self._bodies.checked(request, ModelUnloadRequest)
        await unload(self._control, request.match_info["model"], asked.parameters)
        return web.Response()

    async def _refuse(self, request: web.Request) -> web.Response:
        check_repository(request.match_info["repository"])
        raise web.HTTPNotFound  # no path has an empty name
