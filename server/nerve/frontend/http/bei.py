"""BEI's routes beside predict_tokens: what a model is, and its tokenizer (its contract, section 8)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Final, NoReturn

import orjson
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

import nerve
from nerve.config.running import Precision
from nerve.config.server import ServerConfig
from nerve.errors import kind_of
from nerve.exchange import Access
from nerve.frontend.http.body import OffsetUnitName
from nerve.frontend.http.dialect import JSON, Route, answer_headers, json_response
from nerve.frontend.http.tei import PLACES, Inputs, TeiDialect, read_request
from nerve.offload import offload, small_answer
from nerve.service.control import ControlService
from nerve.service.inference import Call
from nerve.service.tokenization import Described, TokenizationService
from nerve.types import TextTokens
from nerve.words import OffsetUnit

DTYPES: Final = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.BF16: "bfloat16",
    Precision.INT8: "int8",
}
TOKENIZATION_WORKERS: Final = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio.to_thread uses in this version of Python."""
WRITTEN_AT_ONCE: Final = 2048
"""Tokens in one call of orjson, which holds the interpreter until it has written all of them."""


def rows_of(value: object) -> list[list[int]]:
    """`ids` in either of its shapes -> rows: a list of ids, or a list of such lists."""
    if not isinstance(value, list):
        _refuse("", "a list of token ids, or a list of lists", value)
    batch = bool(value) and isinstance(value[0], list)
    rows = value if batch or not value else [value]
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            _refuse(f"item [{index}]: ", "a list", row)
        for inner, number in enumerate(row):
            if type(number) is not int:  # a boolean would be one
                place = f"[{index}][{inner}]" if batch else f"[{inner}]"
                _refuse(f"item {place}: ", "a whole number", number)
    return rows


def _refuse(place: str, expected: str, given: object) -> NoReturn:
    shown = repr(given) if isinstance(given, float) else kind_of(given)
    raise ValueError(f"{place}expected {expected}, got {shown}")


_ID = {"type": "integer", "minimum": 0}
_IDS_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "anyOf": [{"items": _ID}, {"items": {"type": "array", "minItems": 1, "items": _ID}}],
}


class TokenizeRequest(BaseModel):
    """Texts to tokenize, and how. Unknown fields are ignored."""

    inputs: Inputs
    """Texts: one string, a list, or a list of lists. Nesting only groups them; the answer has one
    list a text. None is cut."""
    add_special_tokens: bool | None = None
    """Whether [CLS], [SEP] and their like are put around each text; by default as for the model,
    which is true unless its config says otherwise."""
    offset_unit: OffsetUnitName | None = None
    """What `start` and `stop` count; code points unless the server or model says otherwise. An
    addition of this server."""


class SimpleToken(BaseModel):
    """A token of a text, or one that the tokenizer added."""

    id: Annotated[int, Field(ge=0)]
    text: str
    """The stretch of the text; of a special token its name."""
    special: bool
    start: Annotated[int, Field(ge=0)] | None
    """Null for a special token, as is `stop`."""
    stop: Annotated[int, Field(ge=0)] | None


class DecodeRequest(BaseModel):
    """Ids to turn into text, and how. Unknown fields are ignored."""

    ids: Annotated[list[list[int]], BeforeValidator(rows_of), WithJsonSchema(_IDS_SCHEMA)]
    """A list of token ids, or a list of such lists; the answer has one text a list."""
    skip_special_tokens: bool = True
    """Whether [CLS], [SEP] and their like are left out of the text."""


class Classifier(BaseModel):
    """Labels by id, and ids by label."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelKind(BaseModel):
    """What the model is for."""

    classifier: Classifier


class Info(BaseModel):
    """The model and its limits, in TEI's words."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    """Its name in the repository."""
    model_sha: None = None
    """Null: models here are files, not revisions of a hub."""
    model_dtype: str | None
    """What its config has it converted to; null where the graph runs as it is."""
    model_type: ModelKind
    max_concurrent_requests: int
    """Texts that may wait; one more is refused with 429."""
    max_input_length: int
    """Tokens of a text that the model sees at once, special ones counted."""
    max_batch_tokens: int
    """Tokens in one run, padding counted."""
    max_batch_requests: int
    """Texts in one run."""
    max_client_batch_size: int
    """Texts in one request."""
    auto_truncate: bool = True
    """A text that is too long is not refused, unless a request asks for that."""
    tokenization_workers: int
    """Threads that long texts are tokenized in."""
    version: str
    """Of this server."""
    sha: None = None
    docker_label: None = None


def describe(described: Described, max_client_batch_size: int) -> Info:
    """What /info answers of a version. Pure."""
    info, precision = described.info, described.precision
    classifier = Classifier(
        id2label={str(number): label for number, label in enumerate(info.labels)},
        label2id={label: number for number, label in enumerate(info.labels)},
    )
    return Info(
        model_id=info.name,
        model_dtype=None if precision is None else DTYPES[precision],
        model_type=ModelKind(classifier=classifier),
        max_concurrent_requests=info.max_queue_size,
        max_input_length=info.max_tokens,
        max_batch_tokens=info.max_num_tokens,
        max_batch_requests=info.max_batch_size,
        max_client_batch_size=max_client_batch_size,
        tokenization_workers=TOKENIZATION_WORKERS,
        version=nerve.__version__,
    )


def write_tokens(texts: list[TextTokens]) -> bytes:
    """The response body of /tokenize: a list a text."""
    parts = [b"["]
    for number, tokens in enumerate(texts):
        parts += [b"," if number else b"", b"[", *_written(tokens), b"]"]
    parts.append(b"]")
    return b"".join(parts)  # once: it may be large, and this lets go of the GIL then


def _written(tokens: TextTokens) -> Iterator[bytes]:
    """What stands between the brackets, a few tokens at a time."""
    rows = zip(tokens.ids, tokens.texts, tokens.special, tokens.start, tokens.end, strict=True)
    comma = b""
    while some := [
        {"id": number, "text": text, "special": special, "start": start, "stop": end}
        for number, text, special, start, end in islice(rows, WRITTEN_AT_ONCE)
    ]:
        yield comma
        yield orjson.dumps(some)[1:-1]
        comma = b","


class BeiDialect(TeiDialect):
    """info, tokenize and decode at the root and for each model under /v1/models; and ping."""

    name = "bei"

    def __init__(
        self, tokenization: TokenizationService, control: ControlService, config: ServerConfig
    ) -> None:
        self._tokenization, self._control, self._config = tokenization, control, config

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        refused = ("400", "404", "408", "413", "422", "500", "503", "504")
        routes = [
            Route("GET", "/ping", self._ping, Access.OPEN, {
                "operationId": "ping", "tags": ["Probes"],
                "summary": "Readiness, with an empty body",
                "responses": {"200": {}}, "errors": ("503",),
            })
        ]  # fmt: skip
        for prefix, suffix in PLACES:
            routes += [
                Route("GET", f"{prefix}/info", self._info, Access.READ, {
                    "operationId": f"info{suffix}", "tags": ["Baseten"],
                    "summary": "Labels and limits of a model",
                    "responses": {"200": {"model": Info}}, "errors": ("404", "503"),
                }),
                Route("POST", f"{prefix}/tokenize", self._tokenize, Access.PREDICT, {
                    "operationId": f"tokenize{suffix}", "tags": ["Baseten"],
                    "summary": "The tokens of whole texts; the model is not run",
                    "request": TokenizeRequest, "required": True,
                    "example": {"inputs": ["Ada Lovelace met Babbage in London"]},
                    "responses": {"200": {"model": list[list[SimpleToken]]}}, "errors": refused,
                }),
                Route("POST", f"{prefix}/decode", self._decode, Access.PREDICT, {
                    "operationId": f"decode{suffix}", "tags": ["Baseten"],
                    "summary": "The texts that lists of token ids stand for",
                    "request": DecodeRequest, "required": True,
                    "example": {"ids": [[5, 6, 7]]},
                    "responses": {"200": {"model": list[str]}}, "errors": refused,
                }),
            ]  # fmt: skip
        return routes

    async def _ping(self, _request: web.Request) -> web.Response:
        if self._control.ready:
            return web.Response()
        return json_response({"error": "unhealthy", "error_type": "Unhealthy"}, status=503)

    async def _info(self, request: web.Request) -> web.Response:
        match = request.match_info
        described = self._tokenization.describe(match.get("model"), match.get("version"))
        about = describe(described, self._config.max_client_batch_size)
        return json_response(about.model_dump(), headers=answer_headers(described.info, 0))

    async def _tokenize(self, request: web.Request) -> web.Response:
        call = self._call(request)
        asked = await read_request(request, TokenizeRequest, self._config)
        info, texts = await self._tokenization.tokenize(
            call,
            asked.inputs,
            add_special_tokens=asked.add_special_tokens,
            offset_unit=OffsetUnit(asked.offset_unit) if asked.offset_unit else None,
        )
        small = small_answer(len(texts), sum(map(len, texts)))
        body = await offload(lambda: write_tokens(texts), inline=small)
        return web.Response(body=body, content_type=JSON, headers=answer_headers(info, 0))

    async def _decode(self, request: web.Request) -> web.Response:
        call = self._call(request)
        asked = await read_request(request, DecodeRequest, self._config)
        info, texts = await self._tokenization.decode(
            call, asked.ids, skip_special_tokens=asked.skip_special_tokens
        )
        return json_response(texts, headers=answer_headers(info, 0))

    def _call(self, request: web.Request) -> Call:
        """That of a request that arrives now."""
        deadline = time.monotonic() + self._config.request_timeout_s
        match, limit = request.match_info, self._config.max_client_batch_size
        return Call(match.get("model"), match.get("version"), deadline, limit)
