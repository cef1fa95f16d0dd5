"""The Open Inference Protocol's routes, put together, and its error shape."""

from __future__ import annotations

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import NerveError
from nerve.frontend.http.dialect import Dialect, Route
from nerve.frontend.http.openinference.bodies import Bodies
from nerve.frontend.http.openinference.errors import error_response, plain_error
from nerve.frontend.http.openinference.infer import InferRoutes
from nerve.frontend.http.openinference.models import ModelRoutes
from nerve.frontend.http.openinference.repository import RepositoryRoutes
from nerve.frontend.http.openinference.settings import SettingsRoutes
from nerve.frontend.v2.infer import Inferrer
from nerve.frontend.v2.settings import Settings
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService


class OpenInferenceDialect(Dialect):
    """Everything under /v2."""

    name = "openinference"

    def __init__(
        self,
        inference: InferenceService,
        control: ControlService,
        config: ServerConfig,
        *,
        inferrer: Inferrer,
        settings: Settings,
    ) -> None:
        """`inferrer` and `settings` are those that gRPC has, too."""
        bodies = Bodies(config)
        self._groups = (
            ModelRoutes(control, inference),
            InferRoutes(inference, inferrer, bodies),
            RepositoryRoutes(control, bodies),
            SettingsRoutes(settings, bodies),
        )

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [route for group in self._groups for route in group.routes()]

    def error(self, error: NerveError) -> web.Response:
        """`{"error"}`."""
        return error_response(error)

    def fallback(self, status: int, message: str) -> web.Response:
        """The same shape."""
        return plain_error(message, status)
