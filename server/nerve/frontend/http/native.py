"""This server's own routes: models, probes, metrics, and the API's documentation."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from nerve.exchange import Access
from nerve.frontend.http.about import METRICS_PATH, About, MetricFamilies, ServerInfo
from nerve.frontend.http.dialect import REASON_HEADER, Route, json_response
from nerve.frontend.http.metrics import PATH, Probes, ProbesDialect
from nerve.service.control import ControlService, ModelStatus, ModelSummary

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
_SCRIPT = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#ui"});'
_PAGE = f"""<!doctype html>
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
<script>{_SCRIPT}</script>
</body>
</html>
"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
PAGE_HEADERS = {
    # Nothing but what comes from here, within no page of others.
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self' 'sha256-{_DIGEST}'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class ModelList(BaseModel):
    """Every model in the repository."""

    models: list[ModelSummary]


def _left_out(schema: JsonDict) -> None:
    """A value that is None is not sent."""
    del schema["default"]


class Readiness(BaseModel):
    """Whether the server should get traffic, and the state of each model."""

    ready: bool
    models: dict[str, str]
    reason: Literal["stopping"] | SkipJsonSchema[None] = Field(None, json_schema_extra=_left_out)
    """Why not, if it is for no model."""


class Liveness(BaseModel):
    """The process answers."""

    live: Literal[True] = True


class ErrorBody(BaseModel):
    """A sentence, and a stable word for programs."""

    error: str
    reason: str


class NativeDialect(ProbesDialect):
    """/v1/models, /v1/server, /livez, /readyz, /metrics and /v1/metrics, /openapi.json and /docs."""

    def __init__(
        self,
        control: ControlService,
        probes: Probes,
        about: About,
        *,
        describe: Callable[[], Mapping[str, object]],
        metrics_port: int | None = None,
    ) -> None:
        """Answers for `control`.

        Args:
            control: knows the models.
            probes: answers for /livez, /readyz and /metrics.
            about: answers for /v1/server and /v1/metrics.
            describe: makes the OpenAPI document; it is asked when the first client wants it.
            metrics_port: that of its own which /metrics is served on, and neither is here; 0 for any.
        """
        super().__init__(probes)
        self._control, self._about = control, about
        self._metrics_port = metrics_port
        self._document = functools.cache(lambda: orjson.dumps(describe()))

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        here = self._metrics_port is None
        return [
            Route("GET", "/v1/models", self._models, Access.READ, {
                "operationId": "list_models", "tags": ["Models"],
                "summary": "Every model with its state",
                "responses": {"200": {"model": ModelList}},
            }),
            Route("GET", "/v1/models/{model}", self._model, Access.READ, {
                "operationId": "get_model", "tags": ["Models"],
                "summary": "State, versions, labels and limits of a model",
                "responses": {"200": {"model": ModelStatus}}, "errors": ("404",),
            }),
            Route("GET", "/v1/server", self._about.server, Access.READ, {
                "operationId": "get_server", "tags": ["Models"],
                "summary": "The server: its version, ports, limits and what it is allowed to do",
                "responses": {"200": {"model": ServerInfo}},
            }),
            Route("GET", METRICS_PATH, self._about.metrics if here else self._elsewhere,
                Access.READ, {
                "operationId": "metrics_as_json", "tags": ["Probes"],
                "summary": "Metrics as JSON: those that `name` tells, as often as it is there, or all",
                "responses": {"200": {"model": MetricFamilies}}, "errors": ("422",),
                "query": {"name": "Of a metric, as on Prometheus' page."},
            }, documented=here),
            Route("GET", "/livez", self._probes.live, Access.OPEN, {
                "operationId": "live", "tags": ["Probes"],
                "summary": "Liveness: the process answers",
                "responses": {"200": {"model": Liveness}},
            }),
            Route("GET", "/readyz", self._probes.ready, Access.OPEN, {
                "operationId": "ready", "tags": ["Probes"],
                "summary": "Readiness: models are loaded and requests are welcome",
                "responses": {"200": {"model": Readiness}, "503": {"model": Readiness}},
            }),
            Route("GET", PATH, self._probes.metrics if here else self._elsewhere, Access.READ, {
                "operationId": "metrics", "tags": ["Probes"],
                "summary": "Prometheus metrics",
                "responses": {"200": {"schema": {"type": "string"}, "type": "text/plain"}},
            }, documented=here),
            Route("GET", "/openapi.json", self._openapi, Access.READ, {
                "operationId": "openapi", "tags": ["Documentation"],
                "summary": "This document",
                "responses": {"200": {"schema": {"type": "object"}}},
            }),
            Route("GET", "/docs", self._docs, Access.READ, documented=False),
            Route("GET", "/docs/{asset}", self._asset, Access.READ, documented=False),
        ]  # fmt: skip

    async def _models(self, _request: web.Request) -> web.Response:
        return json_response({"models": self._control.models()})

    async def _model(self, request: web.Request) -> web.Response:
        return json_response(self._control.model(request.match_info["model"]))

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        where = f"port {self._metrics_port}" if self._metrics_port else "a port of its own"
        response = self.fallback(404, f"{PATH} is served on {where} (metrics_port), not here")
        response.headers[REASON_HEADER] = "not_served"
        return response

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._document(), content_type="application/json")

    async def _docs(self, _request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html", headers=PAGE_HEADERS)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["asset"]
        if name not in ASSETS:
            raise web.HTTPNotFound
        path = files("nerve.frontend.http") / "static" / "swagger-ui" / name
        headers = {"Content-Type": ASSETS[name], "Cache-Control": "max-age=86400"}
        return web.FileResponse(str(path), headers=headers)
