"""What the routes of a BEI (text-embeddings-inference) server share: inputs, limits, errors."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from nerve.config.server import ServerConfig
from nerve.errors import (
    AsyncQueueFull,
    EmptyInput,
    InferenceFailed,
    NerveError,
    NonFiniteScores,
    Overloaded,
    TextTooLong,
    TokenizationFailed,
    TooManyInputs,
    kind_of,
)
from nerve.frontend.http.body import RequestT, parse, read_body
from nerve.frontend.http.dialect import Dialect, error_headers, json_response
from nerve.frontend.status import outcome

MAX_BODY_BYTES: Final = 2_000_000
"""TEI's payload_limit."""
PLACES: Final = (
    ("", ""),
    ("/v1/models/{model}", "_of_model"),
    ("/v1/models/{model}/versions/{version}", "_of_version"),
)
"""What stands before a route, and behind its operation id: the default model, a model, a version."""


def flatten(value: object) -> list[str]:
    """`inputs` in any of its shapes -> texts: a string, a list of strings, of lists, or mixed."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"expected a string or a list of texts, got {kind_of(value)}")  # noqa: TRY004  pydantic wants ValueError
    texts: list[str] = []
    for index, item in enumerate(value):
        for inner, text in enumerate(item) if isinstance(item, list) else ((None, item),):
            if not isinstance(text, str):
                place = f"[{index}]" if inner is None else f"[{index}][{inner}]"
                raise ValueError(f"item {place}: expected a string, got {kind_of(text)}")  # noqa: TRY004  as above
            texts.append(text)
    return texts


_INPUTS_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "string", "minLength": 1}},
                ]
            },
        },
    ],
}

Inputs = Annotated[list[str], BeforeValidator(flatten), WithJsonSchema(_INPUTS_SCHEMA)]
"""Texts as a request may give them."""


async def read_request(
    request: web.Request, model: type[RequestT], config: ServerConfig
) -> RequestT:
    """The checked body of a request. Raises what `read_body` and `parse` raise."""
    body = await read_body(
        request,
        limit_bytes=min(config.max_body_bytes, MAX_BODY_BYTES),
        timeout_s=config.body_timeout_s,
    )
    return await parse(body, model)


class PredictTokensError(BaseModel):
    """Why there is no answer."""

    error: str
    error_type: Literal["Validation", "Tokenizer", "Empty", "Overloaded", "Backend", "Unhealthy"]


class TeiDialect(Dialect, ABC):
    """Routes whose errors are `{"error", "error_type"}`, in TEI's words where it has some."""

    def error(self, error: NerveError) -> web.Response:
        """See `Dialect.error`."""
        row = outcome(error)
        body = {"error": _message(error), "error_type": row.baseten_type}
        return json_response(body, status=row.baseten, headers=error_headers(error))

    def fallback(self, status: int, message: str) -> web.Response:
        """The same shape."""
        return json_response({"error": message, "error_type": "Validation"}, status=status)


def _message(error: NerveError) -> str:
    match error:
        case EmptyInput():
            text = f"`{error.field.partition('[')[0]}` cannot be empty"
        case TooManyInputs():
            text = f"batch size {error.given} > maximum allowed batch size {error.limit}"
        case TextTooLong():
            text = (
                f"Input validation error: `inputs` must have less than {error.limit} "
                f"{error.unit}. Given: {error.given}"
            )
        case Overloaded() if not isinstance(error, AsyncQueueFull):
            text = "Model is overloaded"
        case TokenizationFailed():
            text = f"Tokenization error: {error.detail}"
        case InferenceFailed():
            text = f"Backend error: {error.detail}"
        case NonFiniteScores():
            text = "score is NaN"
        case _:
            text = str(error)
    return text
