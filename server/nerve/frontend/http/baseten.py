"""Baseten's BEI-Bert route POST /predict_tokens (its contract, sections 1 to 7)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field

from nerve.config.server import ServerConfig
from nerve.exchange import Access
from nerve.frontend.http.body import OffsetUnitName, Strings
from nerve.frontend.http.call import read_call
from nerve.frontend.http.dialect import JSON, Route, answer_headers, json_bytes
from nerve.frontend.http.tei import PLACES, Inputs, TeiDialect, read_request
from nerve.offload import offload, small_answer
from nerve.service.filtering import SpanFilter
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.types import CallStatistics, CutOptions, ModelInfo, Span, SpanAnswer
from nerve.words import OffsetUnit, Side, Strategy

StrategyName = Literal["none", "simple", "first", "average", "max"]
Written = TypeVar("Written")


class PredictTokensRequest(BaseModel):
    """Texts to tag, and how. Unknown fields are ignored."""

    inputs: Inputs
    """Texts: a list of lists, a list, or one string. Nesting only groups them; the answer has
    one entry a text."""
    truncate: bool | None = None
    """Whether a text longer than the model is cut (the default) or refused."""
    truncation_direction: Literal["Right", "right", "Left", "left"] = "Right"
    """The end of a long text that is cut off; where it is left out, the model's config may say."""
    raw_scores: bool = False
    """Logits instead of probabilities; in strategy `none` those of all labels."""
    aggregation_strategy: StrategyName | None = None
    """How word pieces become entities, as in transformers; `none` (the default, unless the
    model's config says otherwise) gives tokens."""
    default_aggregation_strategy: StrategyName = "none"
    """Taken where neither the request nor the model's config names one. An addition of this
    server."""
    ignore_labels: Strings = ["O"]
    """Labels to leave out: full ones (B-ORG) in strategy `none`, else without prefix (ORG)."""
    offset_unit: OffsetUnitName | None = None
    """What `start` and `end` count; code points unless the server or model says otherwise. An
    addition of this server."""
    threshold: float | None = None
    """Least score of what is answered. An addition of this server."""
    labels: Strings = []
    """Only what has one of these labels, with or without prefix; none means all. An addition of
    this server."""


class Prediction(BaseModel):
    """An entity, or a token in strategy `none`."""

    token: str
    token_id: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    results: dict[str, float]


def _side(asked: PredictTokensRequest) -> Side | None:
    """The side that a request names; None leaves it to the model, whose own default is right."""
    if "truncation_direction" not in asked.model_fields_set:
        return None
    return Side(asked.truncation_direction.lower())


def render(
    spans: list[list[Span]], labels: tuple[str, ...], *, all_scores: bool
) -> list[list[dict[str, Any]]]:
    """The response body: always two levels, one list a text."""
    return [
        [
            {
                "token": span.text,
                "token_id": span.token_id,
                "start": span.start,
                "end": span.end,
                "results": (
                    dict(zip(labels, span.scores, strict=True))
                    if all_scores and span.scores is not None
                    else {span.label: span.score}
                ),
            }
            for span in text
        ]
        for text in spans
    ]


def span_request(asked: PredictTokensRequest) -> SpanRequest:
    """What a request wants of the data plane. Pure."""
    strategy = asked.aggregation_strategy
    return SpanRequest(
        asked.inputs,
        default_strategy=Strategy(asked.default_aggregation_strategy),
        strategy=Strategy(strategy) if strategy else None,
        ignore_labels=frozenset(asked.ignore_labels),
        raw_scores=asked.raw_scores,
        offset_unit=OffsetUnit(asked.offset_unit) if asked.offset_unit else None,
        cut=CutOptions(truncate=asked.truncate is not False, side=_side(asked)),
        only=SpanFilter(asked.threshold, frozenset(asked.labels) or None),
    )


def answer_body(asked: PredictTokensRequest, info: ModelInfo, answer: SpanAnswer) -> bytes:
    """The JSON of a response."""
    return json_bytes(render(answer.spans, info.labels, all_scores=asked.raw_scores))


async def predict_tokens(
    inference: InferenceService,
    call: Call,
    asked: PredictTokensRequest,
    write: Callable[[ModelInfo, SpanAnswer], Written],
) -> Written:
    """Answer a request, whoever brought it; `write` makes the answer, a large one in a thread.

    Raises:
        What `InferenceService.spans` raises.
    """
    info, answer = await inference.spans(call, span_request(asked))
    small = small_answer(len(asked.inputs), answer.statistics.tokens)
    return await offload(lambda: write(info, answer), inline=small)


class BasetenDialect(TeiDialect):
    """predict_tokens for the default model at the root, and for each model under /v1/models."""

    name = "baseten"

    def __init__(self, inference: InferenceService, config: ServerConfig) -> None:
        self._inference, self._config = inference, config

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        return [
            Route("POST", f"{prefix}/predict_tokens", self._predict_tokens, Access.PREDICT, {
                "operationId": f"predict_tokens{suffix}", "tags": ["Baseten"],
                "summary": "Find entities in texts",
                "request": PredictTokensRequest,
                "example": {
                    "inputs": [["Apple is looking at buying U.K. startup for $1 billion"]],
                    "aggregation_strategy": "max",
                },
                "responses": {"200": {"model": list[list[Prediction]]}},
            })
            for prefix, suffix in PLACES
        ]  # fmt: skip

    async def _predict_tokens(self, request: web.Request) -> web.Response:
        limit = self._config.max_client_batch_size
        call = read_call(request, self._inference, max_texts=limit)
        asked = await read_request(request, PredictTokensRequest, self._config)

        def write(info: ModelInfo, answer: SpanAnswer) -> web.Response:
            body, cost = answer_body(asked, info, answer), answer.statistics
            headers = answer_headers(info, cost.truncated_texts)
            headers |= _compute_headers(info, cost, asked.inputs, call.arrived)
            return web.Response(body=body, content_type=JSON, headers=headers)

        return await predict_tokens(self._inference, call, asked, write)


def _compute_headers(
    info: ModelInfo, statistics: CallStatistics, texts: list[str], arrived: float
) -> dict[str, str]:
    """TEI's response headers, in whole milliseconds; characters are bytes on this route."""
    total = str(round((time.monotonic() - arrived) * 1e3))
    return {
        "x-compute-type": info.device,
        "x-compute-time": total,
        "x-compute-characters": str(sum(len(text.encode()) for text in texts)),
        "x-compute-tokens": str(statistics.tokens),
        "x-total-time": total,
        "x-tokenization-time": str(round(statistics.tokenization_s * 1e3)),
        "x-queue-time": str(round(statistics.queue_s * 1e3)),
        "x-inference-time": str(round(statistics.inference_s * 1e3)),
    }
