"""The Open Inference Protocol's routes; so far its model repository extension (kserve-v2, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import orjson
from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from nerve.config.server import ServerConfig
from nerve.errors import (
    BodyTooLarge,
    ConfigInvalid,
    InvalidField,
    NerveError,
)
from nerve.frontend.http.body import RequestT, json_kind, parse, read_body
from nerve.frontend.http.dialect import Dialect, Route, json_response, retry_headers
from nerve.frontend.status import outcome
from nerve.service.control import ControlService

FILES_REFUSED = "files are not taken over the network; put them into the repository instead"


def _config(value: object) -> object:
    """`config` as the protocol has it, JSON in a string, or as the object itself."""
    if value is None or isinstance(value, dict):
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected a JSON object, or its text, got {json_kind(value)}")  # noqa: TRY004  pydantic wants ValueError
    try:
        parsed: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"expected the text of a JSON object, got that of {json_kind(parsed)}")  # noqa: TRY004  as above
    return parsed


class _Parameters(BaseModel):
    """Parameters of a call. One that is not known is refused: it would have had a meaning."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, got {json_kind(value)}")  # noqa: TRY004  as above
        for name in value:
            if name.startswith("file:"):
                raise ValueError(f"{name!r:.60}: {FILES_REFUSED}")
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise ValueError(f"unknown parameter {name!r:.60}; known: {known}")
        return value


class LoadParameters(_Parameters):
    """What a load may be told."""

    config: Annotated[
        dict[str, object] | None,
        BeforeValidator(_config),
        WithJsonSchema({"type": ["string", "object", "null"]}),
    ] = None
    """Taken in place of config.yaml, with the same keys, until the next load; JSON text (as the
    protocol has it) or the object itself."""


class UnloadParameters(_Parameters):
    """What an unload may be told."""

    unload_dependents: bool = False
    """Without effect: no model here is made of others."""
    wait: bool = False
    """Answer when requests in flight have ended and the model is freed; an addition of this
    server."""


class RepositoryIndexRequest(BaseModel):
    """What to list."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ready: bool = False
    """Only what is READY."""


class ModelLoadRequest(BaseModel):
    """How to load."""

    parameters: LoadParameters = Field(default_factory=LoadParameters)


class ModelUnloadRequest(BaseModel):
    """How to unload."""

    parameters: UnloadParameters = Field(default_factory=UnloadParameters)


class RepositoryIndexRow(BaseModel):
    """A version; or a model that has none that can be used, or that was never loaded."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    version: str | None = None
    """Left out where there is no version to speak of."""
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"] | None = None
    """Left out for a model that was never loaded."""
    reason: str | None = None
    """Why it is not READY; with READY, why the last attempt to replace it failed."""


class OpenInferenceError(BaseModel):
    """Why there is no answer."""

    error: str


def index_row(name: str, version: int, state: str, reason: str) -> dict[str, str]:
    """A row in the protocol's shape: strings, and only the keys that have a meaning. Pure.

    Version 0 is a model without a usable one; without a reason, too, it was never loaded.
    """
    row = {"name": name}
    if version:
        row["version"] = str(version)
    if version or reason or state != "UNAVAILABLE":
        row["state"] = state
    if reason:
        row["reason"] = reason
    return row


class OpenInferenceDialect(Dialect):
    """/v2/repository: what is loaded, and loading and unloading it."""

    name = "openinference"

    def __init__(self, control: ControlService, config: ServerConfig) -> None:
        self._control, self._config = control, config

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        model = "/v2/repository/models/{model}"
        refused = ("400", "404", "408", "409", "413", "500")
        return [
            Route("POST", "/v2/repository/index", self._index, {
                "operationId": "repository_index", "tags": ["Repository"],
                "summary": "Every version of every model, with its state and why it is in it",
                "request": RepositoryIndexRequest, "example": {"ready": True},
                "responses": {"200": {"model": list[RepositoryIndexRow]}},
                "errors": ("400", "408", "413", "500"),
                "descriptions": {"400": "The request is at fault."},
            }),
            Route("POST", f"{model}/load", self._load, {
                "operationId": "repository_model_load", "tags": ["Repository"],
                "summary": "Load a model, or what changed of it; answers when it is READY",
                "request": ModelLoadRequest,
                "example": {"parameters": {"config": '{"max_batch_size": 16}'}},
                "responses": {"200": {}}, "errors": refused,
                "descriptions": {"400": "The request is at fault, or a version cannot be loaded: "
                                 "`error` has the reason of each."},
            }),
            Route("POST", f"{model}/unload", self._unload, {
                "operationId": "repository_model_unload", "tags": ["Repository"],
                "summary": "Unload a model; requests in flight end first",
                "request": ModelUnloadRequest, "example": {"parameters": {"wait": True}},
                "responses": {"200": {}}, "errors": refused,
                "descriptions": {"400": "The request is at fault."},
            }),
        ]  # fmt: skip

    async def _index(self, request: web.Request) -> web.Response:
        asked = await self._read(request, RepositoryIndexRequest)
        rows = await self._control.index(ready_only=asked.ready)
        return json_response(
            [index_row(row.name, row.version, row.state.value, row.reason) for row in rows]
        )

    async def _load(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        try:
            asked = await self._read(request, ModelLoadRequest)
        except BodyTooLarge as error:
            # what makes such a body large is files in it
            raise InvalidField("", f"{error}; {FILES_REFUSED}") from error
        override = asked.parameters.config
        try:
            await self._control.load(name, config=override)
        except ConfigInvalid as error:
            # only the caller's own config: one of the disk is a failed load
            faults = "; ".join(map(str, error.problems))
            raise InvalidField("parameters.config", faults) from error
        return web.Response()

    async def _unload(self, request: web.Request) -> web.Response:
        asked = await self._read(request, ModelUnloadRequest)
        await self._control.unload(request.match_info["model"], wait=asked.parameters.wait)
        return web.Response()

    async def _read(self, request: web.Request, model: type[RequestT]) -> RequestT:
        """The body; an empty one says nothing, which is what most clients send."""
        body = await read_body(
            request,
            limit_bytes=self._config.max_body_bytes,
            timeout_s=self._config.body_timeout_s,
        )
        return await parse(body if body.strip() else b"{}", model)

    def error(self, error: NerveError) -> web.Response:
        """`{"error"}`."""
        return _error(str(error), outcome(error).v2, retry_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """The same shape."""
        return _error(message, status, {})


def _error(message: str, status: int, headers: Mapping[str, str]) -> web.Response:
    return json_response({"error": message}, status=status, headers=headers)
