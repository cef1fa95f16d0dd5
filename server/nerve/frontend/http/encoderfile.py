"""Encoderfile's token-classification routes (its contract, section 1): /health, /model, /predict."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field, WithJsonSchema

from nerve.config.server import ServerConfig
from nerve.errors import (
    BodyTooLarge,
    InvalidField,
    MalformedBody,
    NerveError,
    UnsupportedMediaType,
)
from nerve.exchange import Access
from nerve.frontend.encoderfile_wording import wording
from nerve.frontend.http.body import (
    OffsetUnitName,
    Strings,
    StringsByKey,
    check,
    load_json,
    read_body,
)
from nerve.frontend.http.call import read_call
from nerve.frontend.http.dialect import (
    Dialect,
    Route,
    answer_headers,
    error_headers,
    json_response,
    text_response,
)
from nerve.frontend.status import outcome
from nerve.offload import INLINE_BYTES, offload, small_answer
from nerve.service.inference import InferenceService
from nerve.types import ModelInfo, TokenTags
from nerve.words import OffsetUnit

TEXTS: dict[type[NerveError], str] = {
    UnsupportedMediaType: "Expected request with `Content-Type: application/json`",
    BodyTooLarge: "Failed to buffer the request body: length limit exceeded",
}
"""Errors of HTTP that Encoderfile has a fixed text for; the others are in `wording`."""
PREFIXES: dict[type[NerveError], str] = {
    MalformedBody: "Failed to parse the request body as JSON: ",
    InvalidField: "Failed to deserialize the JSON body into the target type: ",
}


class TokenClassificationRequest(BaseModel):
    """Texts to tag. Unknown fields are ignored."""

    inputs: Annotated[Strings, WithJsonSchema({
        "type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1},
    })]  # fmt: skip
    """Texts, none of them empty."""
    metadata: StringsByKey | None = None
    """Echoed in the response."""
    offset_unit: OffsetUnitName | None = None
    """What `start` and `end` count; bytes unless the server or model says otherwise. An
    addition of this server."""


class TokenInfo(BaseModel):
    """A vocabulary piece and where it stands in the text."""

    token: str
    token_id: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


class TokenClassification(BaseModel):
    """One token: the model's raw scores for all labels, and the best of them."""

    token_info: TokenInfo
    scores: list[float]
    label: str
    score: float


class TokenClassificationResult(BaseModel):
    """The tokens of one text, in order."""

    tokens: list[TokenClassification]


class TokenClassificationResponse(BaseModel):
    """One result a text, in request order. `metadata` only if the request carried some."""

    results: list[TokenClassificationResult]
    model_id: str
    metadata: dict[str, str] | None = None


class ModelType(StrEnum):
    """Encoderfile's name of the only task here."""

    TOKEN_CLASSIFICATION = "token_classification"  # noqa: S105  no password


class GetModelMetadataResponse(BaseModel):
    """What the model is."""

    model_id: str
    model_type: ModelType
    id2label: dict[str, str] | None


_ESCAPED_KEY = re.compile(rb'"[^"\\]*\\u[0-9a-fA-F]{4}[^"]*"\s*:')


def wants_json(content_type: str) -> bool:
    """Whether a Content-Type is application/json or application/…+json."""
    kind = content_type.split(";", 1)[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def parse_request(body: bytes) -> TokenClassificationRequest:
    """The body of /predict; an array `[inputs, metadata]` counts too, as serde takes it.

    Raises:
        MalformedBody, InvalidField.
    """
    value = load_json(body)
    # orjson keeps the last of repeated keys; serde refuses them. Only a body that could hold
    # one, perhaps written with escapes, is read again.
    if _ESCAPED_KEY.search(body) or body.count(b'"inputs"') > 1 or body.count(b'"metadata"') > 1:
        _refuse_repeated(body)
    if isinstance(value, list):
        if not 1 <= len(value) <= 2:
            raise InvalidField("", f"expected [inputs, metadata], got {len(value)} elements")
        value = dict(zip(("inputs", "metadata"), value, strict=False))
    return check(value, TokenClassificationRequest)


def _refuse_repeated(body: bytes) -> None:
    def pairs(items: list[tuple[str, object]]) -> _Pairs:
        return _Pairs(items)

    try:
        top = json.loads(body, object_pairs_hook=pairs)
    except RecursionError:
        raise MalformedBody("it is nested too deeply") from None
    if isinstance(top, _Pairs):
        names = [name for name, _ in top.items]
        for name in ("inputs", "metadata"):
            if names.count(name) > 1:
                raise InvalidField("", f"duplicate field `{name}`")


class _Pairs:
    def __init__(self, items: list[tuple[str, object]]) -> None:
        self.items = items


def render(
    info: ModelInfo, texts: list[TokenTags], metadata: dict[str, str] | None
) -> dict[str, Any]:
    """The response body; float32 values stay numpy so that they are written as float32."""
    body: dict[str, Any] = {
        "results": [result(tags, info.labels) for tags in texts],
        "model_id": info.name,
    }
    if metadata is not None:
        body["metadata"] = metadata
    return body


def result(tags: TokenTags, labels: tuple[str, ...]) -> dict[str, Any]:
    """The tokens of one text."""
    return {
        "tokens": [
            {
                "token_info": {"token": piece, "token_id": number, "start": start, "end": end},
                "scores": scores,
                "label": labels[best],
                "score": score,
            }
            for piece, number, start, end, scores, best, score in tags.rows()
        ]
    }


class EncoderfileDialect(Dialect):
    """The routes for the default model at the root, and for each model under /v1/models."""

    name = "encoderfile"

    def __init__(self, inference: InferenceService, config: ServerConfig) -> None:
        self._inference, self._config = inference, config

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        out = [
            Route("GET", "/health", self._health, Access.OPEN, {
                "operationId": "health", "summary": "Liveness: the server answers",
                "tags": ["Encoderfile"], "responses": {"200": {"schema": {"type": "string"}}},
            }),
        ]  # fmt: skip
        for prefix, suffix in (
            ("", ""),
            ("/v1/models/{model}", "_of_model"),
            ("/v1/models/{model}/versions/{version}", "_of_version"),
        ):
            if prefix:
                out.append(Route("GET", f"{prefix}/health", self._model_health, Access.OPEN, {
                    "operationId": f"health{suffix}", "summary": "Whether the model answers",
                    "tags": ["Encoderfile"],
                    "responses": {"200": {"schema": {"type": "string"}}},
                    "errors": ("404", "503"),
                }))  # fmt: skip
            out += [
                Route("GET", f"{prefix}/model", self._model, Access.READ, {
                    "operationId": f"get_model_metadata{suffix}", "tags": ["Encoderfile"],
                    "summary": "Name, type and labels of the model",
                    "responses": {"200": {"model": GetModelMetadataResponse}},
                    "errors": ("404", "503"),
                }),
                Route("POST", f"{prefix}/predict", self._predict, Access.PREDICT, {
                    "operationId": f"predict{suffix}", "tags": ["Encoderfile"],
                    "summary": "Tag texts token by token",
                    "request": TokenClassificationRequest,
                    "example": {"inputs": ["Mozilla is headquartered in San Francisco, CA"]},
                    "responses": {"200": {"model": TokenClassificationResponse}},
                }),
            ]  # fmt: skip
        return out

    async def _health(self, _request: web.Request) -> web.Response:
        return json_response("OK!")

    async def _model_health(self, request: web.Request) -> web.Response:
        self._info(request)
        return json_response("OK!")

    async def _model(self, request: web.Request) -> web.Response:
        info = self._info(request)
        labels = {str(number): label for number, label in enumerate(info.labels)}
        return json_response(
            {
                "model_id": info.name,
                "model_type": ModelType.TOKEN_CLASSIFICATION,
                "id2label": labels,
            }
        )

    def _info(self, request: web.Request) -> ModelInfo:
        match = request.match_info
        return self._inference.info(match.get("model"), match.get("version"))

    async def _predict(self, request: web.Request) -> web.Response:
        if not wants_json(request.headers.get("Content-Type", "")):
            raise UnsupportedMediaType(request.headers.get("Content-Type", ""))
        call = read_call(request, self._inference, max_texts=self._config.max_inputs)
        body = await read_body(
            request,
            limit_bytes=self._config.max_body_bytes,
            timeout_s=self._config.body_timeout_s,
        )
        asked = await offload(lambda: parse_request(body), inline=len(body) <= INLINE_BYTES)
        info, answer = await self._inference.tokens(
            call,
            asked.inputs,
            offset_unit=OffsetUnit(asked.offset_unit) if asked.offset_unit else None,
            default_unit=OffsetUnit.BYTE,
        )
        statistics = answer.statistics
        headers = answer_headers(info, statistics.truncated_texts)
        return await offload(
            lambda: json_response(render(info, answer.texts, asked.metadata), headers=headers),
            inline=small_answer(len(asked.inputs), statistics.tokens),
        )

    def error(self, error: NerveError) -> web.Response:
        """Plain text, with Encoderfile's own words where it has some."""
        detail = error.detail if isinstance(error, MalformedBody) else wording(error)
        text = TEXTS.get(type(error)) or PREFIXES.get(type(error), "") + detail
        return text_response(text, status=outcome(error).http, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:  # noqa: ARG002
        """An empty body, as Encoderfile has it."""
        return web.Response(status=status)
