"""This server's own routes: models, probes, metrics, and the API's documentation."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Literal

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from nerve.errors import NerveError
from nerve.frontend.http.dialect import Dialect, Route, error_headers, json_response
from nerve.frontend.status import outcome
from nerve.service.control import ControlService, ModelStatus, ModelSummary

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nerve API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui"});</script>
</body>
</html>
"""


class ModelList(BaseModel):
    """Every model in the repository."""

    models: list[ModelSummary]


class Readiness(BaseModel):
    """Whether the server should get traffic, and the state of each model."""

    ready: bool
    models: dict[str, str]


class Liveness(BaseModel):
    """The process answers."""

    live: Literal[True] = True


class ErrorBody(BaseModel):
    """A sentence, and a stable word for programs."""

    error: str
    reason: str


class NativeDialect(Dialect):
    """/v1/models, /livez, /readyz, /metrics, /openapi.json and /docs."""

    name = "native"

    def __init__(
        self,
        control: ControlService,
        registry: CollectorRegistry,
        *,
        describe: Callable[[], Mapping[str, object]],
    ) -> None:
        """`describe` makes the OpenAPI document; it is asked when the first client wants it."""
        self._control, self._registry = control, registry
        self._document = functools.cache(lambda: orjson.dumps(describe()))

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("GET", "/v1/models", self._models, {
                "operationId": "list_models", "tags": ["Models"],
                "summary": "Every model with its state",
                "responses": {"200": {"model": ModelList}},
            }),
            Route("GET", "/v1/models/{model}", self._model, {
                "operationId": "get_model", "tags": ["Models"],
                "summary": "State, versions, labels and limits of a model",
                "responses": {"200": {"model": ModelStatus}}, "errors": ("404",),
            }),
            Route("GET", "/livez", self._live, {
                "operationId": "live", "tags": ["Probes"],
                "summary": "Liveness: the process answers",
                "responses": {"200": {"model": Liveness}},
            }),
            Route("GET", "/readyz", self._ready, {
                "operationId": "ready", "tags": ["Probes"],
                "summary": "Readiness: models are loaded and requests are welcome",
                "responses": {"200": {"model": Readiness}, "503": {"model": Readiness}},
            }),
            Route("GET", "/metrics", self._metrics, {
                "operationId": "metrics", "tags": ["Probes"],
                "summary": "Prometheus metrics",
                "responses": {"200": {"schema": {"type": "string"}, "type": "text/plain"}},
            }),
            Route("GET", "/openapi.json", self._openapi, {
                "operationId": "openapi", "tags": ["Documentation"],
                "summary": "This document",
                "responses": {"200": {"schema": {"type": "object"}}},
            }),
            Route("GET", "/docs", self._docs, documented=False),
            Route("GET", "/docs/{asset}", self._asset, documented=False),
        ]  # fmt: skip

    async def _models(self, _request: web.Request) -> web.Response:
        return json_response({"models": self._control.models()})

    async def _model(self, request: web.Request) -> web.Response:
        return json_response(self._control.model(request.match_info["model"]))

    async def _live(self, _request: web.Request) -> web.Response:
        return json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        ready = self._control.ready
        body = {"ready": ready, "models": self._control.states()}
        return json_response(body, status=200 if ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, self._registry)  # long with many models
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._document(), content_type="application/json")

    async def _docs(self, _request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["asset"]
        if name not in ASSETS:
            raise web.HTTPNotFound
        path = files("nerve.frontend.http") / "static" / "swagger-ui" / name
        headers = {"Content-Type": ASSETS[name], "Cache-Control": "max-age=86400"}
        return web.FileResponse(str(path), headers=headers)

    def error(self, error: NerveError) -> web.Response:
        """`{"error", "reason"}`."""
        body = {"error": str(error), "reason": error.reason}
        return json_response(body, status=outcome(error).http, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """The same shape."""
        reason = "method_not_allowed" if status == 405 else "not_found"
        return json_response({"error": message, "reason": reason}, status=status)
