"""Requests as messages of nerve.v1, and answers from them. Pure: no channel is touched here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from nerve_client._proto import nerve_pb2 as pb
from nerve_client.errors import NerveError, ServerError, of_code
from nerve_client.requests import (
    Extract,
    GetModel,
    ListModels,
    Live,
    Predict,
    PredictTokens,
    Ready,
    Request,
    TextRequest,
)
from nerve_client.results import (
    Answer,
    Entity,
    Limits,
    ModelStatus,
    ModelSummary,
    Statistics,
    Token,
    TokenResult,
    VersionStatus,
)

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")
Said: TypeAlias = Any
"""A message of the type that `Exchange.answer` names."""

STREAM: Final = "/nerve.v1.Nerve/ExtractStream"
HEALTH: Final = "/grpc.health.v1.Health/Check"
PRIORITY_KEY: Final = "x-nerve-priority"
REASON_KEY: Final = "x-nerve-reason"
RETRY_KEY: Final = "retry-after"

AGGREGATION: Final = {
    None: pb.AGGREGATION_UNSPECIFIED,
    "none": pb.AGGREGATION_NONE,
    "simple": pb.AGGREGATION_SIMPLE,
    "first": pb.AGGREGATION_FIRST,
    "average": pb.AGGREGATION_AVERAGE,
    "max": pb.AGGREGATION_MAX,
}
OFFSET_UNIT: Final = {
    None: pb.OFFSET_UNIT_CODEPOINT,  # whatever the server's config says, see TextOptions
    "codepoint": pb.OFFSET_UNIT_CODEPOINT,
    "byte": pb.OFFSET_UNIT_BYTE,
    "utf16": pb.OFFSET_UNIT_UTF16,
}
SIDE: Final = {
    None: pb.TRUNCATION_SIDE_UNSPECIFIED,
    "right": pb.TRUNCATION_SIDE_RIGHT,
    "left": pb.TRUNCATION_SIDE_LEFT,
}
CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Exchange(Generic[ResultT]):
    """A call as it is made: `method` with its service, `message` to send, `answer` to parse."""

    method: str
    message: Message
    answer: type[Message]
    read: Callable[[Said], ResultT]
    metadata: tuple[tuple[str, str], ...] = ()


def exchange(request: Request[ResultT]) -> Exchange[ResultT]:
    """How a request is sent."""
    made: Exchange[Any]
    match request:
        case Extract():
            message = pb.ExtractRequest(
                **_target(request), texts=request.texts, options=_options(request)
            )
            made = _texts(request, "Extract", message, pb.ExtractResponse, _entities)
        case PredictTokens():
            made = _texts(
                request,
                "PredictTokens",
                _predict_tokens(request),
                pb.PredictTokensResponse,
                _token_results,
            )
        case Predict():
            asked = pb.PredictRequest(
                **_target(request),
                texts=request.texts,
                offset_unit=OFFSET_UNIT[request.offset_unit],
            )
            made = _texts(request, "Predict", asked, pb.PredictResponse, _tokens)
        case ListModels():
            made = _nerve("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse, _models)
        case GetModel():
            named = pb.GetModelRequest(model=request.name)
            made = _nerve("GetModel", named, pb.GetModelResponse, _model)
        case Ready() | Live():
            serving = health_pb2.HealthCheckResponse.SERVING
            enough = isinstance(request, Live)
            made = Exchange(
                HEALTH,
                health_pb2.HealthCheckRequest(),
                health_pb2.HealthCheckResponse,
                lambda said: enough or said.status == serving,
            )
        case _:
            raise AssertionError(request)
    return cast("Exchange[ResultT]", made)  # mypy cannot tie the cases to ResultT


def _nerve(
    name: str, message: Message, answer: type[Message], read: Callable[[Said], ResultT]
) -> Exchange[ResultT]:
    return Exchange(f"/nerve.v1.Nerve/{name}", message, answer, read)


def _texts(
    request: TextRequest[ItemT],
    name: str,
    message: Message,
    answer: type[Message],
    read: Callable[[Said], list[ItemT]],
) -> Exchange[Answer[list[ItemT]]]:
    def results(said: Said) -> Answer[list[ItemT]]:
        if len(said.results) != len(request.texts):
            text = f"{len(said.results)} results for {len(request.texts)} texts"
            raise ServerError(text, reason="invalid_answer")
        return Answer(
            map(read, said.results),
            model=said.model,
            version=said.version,
            truncated_texts=said.truncated_texts,
        )

    method = f"/nerve.v1.Nerve/{name}"
    return Exchange(method, message, answer, results, metadata(request.priority))


def metadata(priority: int | None) -> tuple[tuple[str, str], ...]:
    """What goes beside a message."""
    return () if priority is None else ((PRIORITY_KEY, str(priority)),)


def _target(request: TextRequest[ItemT]) -> dict[str, Any]:
    version = "" if request.version is None else str(request.version)
    return {"model": request.model or "", "version": version}


def _options(request: Extract) -> pb.ExtractOptions:
    return pb.ExtractOptions(
        aggregation=AGGREGATION[request.aggregation],
        threshold=None if request.threshold is None else float(request.threshold),
        labels=request.labels or (),
        offset_unit=OFFSET_UNIT[request.offset_unit],
        truncation_side=SIDE[request.truncation_side],
        **_truncate(request),
    )


def _predict_tokens(request: PredictTokens) -> pb.PredictTokensRequest:
    ignored = request.ignore_labels
    return pb.PredictTokensRequest(
        **_target(request),
        texts=request.texts,
        aggregation=AGGREGATION[request.aggregation],
        ignore_labels=None if ignored is None else pb.Labels(labels=ignored),
        raw_scores=request.raw_scores,
        offset_unit=OFFSET_UNIT[request.offset_unit],
        truncation_side=SIDE[request.truncation_side],
        **_truncate(request),
    )


def _truncate(request: Extract | PredictTokens) -> dict[str, Any]:
    return {} if request.truncate is None else {"truncate": request.truncate}


def stream_message(request: Extract) -> pb.ExtractStreamRequest:
    """Texts as a message of the stream; results come back in order, so ids are not needed."""
    return pb.ExtractStreamRequest(
        **_target(request),
        options=_options(request),
        items=[pb.ExtractItem(text=text) for text in request.texts],
    )


def stream_results(said: pb.ExtractStreamResponse) -> list[list[Entity] | NerveError]:
    """Entities of each item of a message, or why there are none."""
    return [
        _item_error(result.error)
        if result.WhichOneof("outcome") == "error"
        else _entities(result.entities)
        for result in said.results
    ]


def _item_error(error: pb.Error) -> NerveError:
    return of_code(
        CODES.get(error.code, "UNKNOWN"),
        error.message,
        reason=error.reason or "unknown",
        retry_after_s=error.retry_after_s or None,
    )


def _entities(found: pb.Entities) -> list[Entity]:
    return [Entity(e.text, e.label, e.start, e.end, e.score) for e in found.entities]


def _token_results(found: pb.TokenResults) -> list[TokenResult]:
    return [TokenResult(t.token, t.token_id, t.start, t.end, dict(t.results)) for t in found.tokens]


def _tokens(found: pb.Tokens) -> list[Token]:
    return [
        Token(t.token, t.token_id, t.start, t.end, tuple(t.scores), t.label, t.score)
        for t in found.tokens
    ]


def _models(said: pb.ListModelsResponse) -> list[ModelSummary]:
    return [
        ModelSummary(each.name, each.state, each.reason, tuple(each.versions), each.default)
        for each in said.models
    ]


def _model(said: pb.GetModelResponse) -> ModelStatus:
    return ModelStatus(
        said.name,
        said.task,
        said.state,
        said.reason,
        said.default,
        tuple(said.labels),
        _limits(said.limits) if said.HasField("limits") else None,
        said.config_override,
        tuple(
            VersionStatus(
                each.version,
                each.state,
                each.reason,
                each.device or None,
                tuple(each.labels),
                _limits(each.limits) if each.HasField("limits") else None,
                _statistics(each.statistics) if each.HasField("statistics") else None,
            )
            for each in said.versions
        ),
    )


def _limits(said: pb.Limits) -> Limits:
    return Limits(
        said.max_tokens,
        said.stride if said.HasField("stride") else None,
        said.max_batch_size,
        said.max_num_tokens,
        said.max_queue_size,
    )


def _statistics(said: pb.Statistics) -> Statistics:
    return Statistics(**{name: getattr(said, name) for name in Statistics.__dataclass_fields__})


def error_of(
    code: str, details: str | None, trailing: Iterable[tuple[str, str | bytes]] | None
) -> NerveError:
    """The error that a status is, by its code's name, its text and its trailing metadata."""
    # No dict(): grpc.aio's metadata give pairs as keys in older releases.
    sent = {key: value for key, value in trailing or ()}  # noqa: C416
    reason, advice = sent.get(REASON_KEY, ""), sent.get(RETRY_KEY, "")
    try:
        seconds = float(advice)
    except ValueError:
        seconds = math.nan
    return of_code(
        code,
        details or code,
        reason=reason if isinstance(reason, str) else "",
        retry_after_s=max(0.0, seconds) if math.isfinite(seconds) else None,
    )
