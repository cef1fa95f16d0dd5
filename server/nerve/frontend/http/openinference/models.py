"""Health, metadata, configuration and statistics (kserve-v2, sections 2 and 5)."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from nerve.exchange import Access
from nerve.frontend.http.dialect import Handler, Route, json_response
from nerve.frontend.http.openinference import documents
from nerve.frontend.http.openinference.bodies import PLACES
from nerve.frontend.http.openinference.errors import bad_where_unavailable
from nerve.frontend.v2.metadata import Json, look_up, model_metadata, server_metadata
from nerve.frontend.v2.model_config import model_config
from nerve.frontend.v2.statistics import model_statistics
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService

Answer = Callable[[str, str], Json]
"""What is said of a model and a version, which may be empty."""


class ModelRoutes:
    """What clients ask before they send anything to tag."""

    def __init__(self, control: ControlService, inference: InferenceService) -> None:
        self._control, self._inference = control, inference

    def routes(self) -> list[Route]:
        """Of the server, of a model, and of its versions."""
        routes = [
            Route("GET", "/v2", self._server, Access.READ, documents.SERVER),
            Route("GET", "/v2/health/live", self._live, Access.OPEN, documents.LIVE),
            Route("GET", "/v2/health/ready", self._ready, Access.OPEN, documents.READY),
            Route("GET", "/v2/models/stats", self._statistics, Access.READ, documents.STATISTICS),
        ]
        for path, of in PLACES:
            routes += [
                Route("GET", path, self._of(self._metadata), Access.READ, documents.metadata(of)),
                Route(
                    "GET",
                    f"{path}/ready",
                    self._of(self._model_ready),
                    Access.OPEN,
                    documents.ready(of),
                ),
                Route(
                    "GET",
                    f"{path}/config",
                    self._of(self._config),
                    Access.READ,
                    documents.config(of),
                ),
                Route(
                    "GET", f"{path}/stats", self._of(self._stats), Access.READ, documents.stats(of)
                ),
            ]
        return routes

    @staticmethod
    def _of(answer: Answer) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            match = request.match_info
            return json_response(answer(match["model"], match.get("version", "")))

        return handler

    async def _server(self, _request: web.Request) -> web.Response:
        return json_response(server_metadata())

    async def _live(self, _request: web.Request) -> web.Response:
        return json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        ready = self._control.ready
        return json_response({"ready": ready}, status=200 if ready else 400)

    async def _statistics(self, _request: web.Request) -> web.Response:
        return json_response(model_statistics(self._control, self._inference))

    def _metadata(self, model: str, version: str) -> Json:
        return model_metadata(self._control, model, version)

    def _config(self, model: str, version: str) -> Json:
        return model_config(self._control, model, version)

    def _model_ready(self, model: str, version: str) -> Json:
        with bad_where_unavailable():
            look_up(self._control, model, version)
        return {"name": model, "ready": True}

    def _stats(self, model: str, version: str) -> Json:
        with bad_where_unavailable():
            return model_statistics(self._control, self._inference, model, version)
