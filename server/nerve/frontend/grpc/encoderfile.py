"""Encoderfile's TokenClassificationInference service (its contract, section 3)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as pb
from nerve._proto.encoderfile import token_pb2
from nerve.config.server import ServerConfig
from nerve.errors import NerveError, ServerFault
from nerve.frontend.encoderfile_wording import wording
from nerve.frontend.grpc.server import abort, observed
from nerve.metrics import RequestMetrics
from nerve.service.inference import Call, InferenceService
from nerve.types import OffsetUnit, TokenTags

SERVICE = "encoderfile.token_classification.TokenClassificationInference"
MODEL_KEY = "model-name"
VERSION_KEY = "model-version"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # a string: generic in the stubs only
AnswerT = TypeVar("AnswerT")


class EncoderfileService:
    """The two methods. The model is named by request metadata, else it is the default one."""

    def __init__(
        self, inference: InferenceService, config: ServerConfig, metrics: RequestMetrics
    ) -> None:
        self._inference, self._config, self._metrics = inference, config, metrics

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """What `grpc.aio.Server.add_generic_rpc_handlers` takes."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Predict": grpc.unary_unary_rpc_method_handler(
                    self._answer(self._predict),
                    request_deserializer=pb.TokenClassificationRequest.FromString,
                    response_serializer=pb.TokenClassificationResponse.SerializeToString,
                ),
                "GetModelMetadata": grpc.unary_unary_rpc_method_handler(
                    self._answer(self._metadata),
                    request_deserializer=metadata.GetModelMetadataRequest.FromString,
                    response_serializer=metadata.GetModelMetadataResponse.SerializeToString,
                ),
            },
        )

    def _answer(
        self, method: Callable[[Any, Context], Awaitable[AnswerT]]
    ) -> Callable[[Any, Context], Awaitable[AnswerT]]:
        async def answer(request: Any, context: Context) -> AnswerT:  # noqa: ANN401  by method
            async with observed(self._metrics, "encoderfile-grpc"):
                try:
                    return await method(request, context)
                except NerveError as error:
                    return await abort(context, error, wording(error))
                except Exception as error:  # noqa: BLE001  boundary: one request must not end the connection
                    fault = ServerFault("the server failed; its log tells why")
                    return await abort(context, fault, str(fault), cause=error)

        return answer

    async def _predict(
        self, request: pb.TokenClassificationRequest, context: Context
    ) -> pb.TokenClassificationResponse:
        model, version = _target(context)
        left = context.time_remaining()
        call = Call(
            model,
            version,
            self._inference.deadline(time.monotonic(), timeout_s=left),
            self._config.max_inputs,
        )
        info, answer = await self._inference.tokens(
            call, list(request.inputs), offset_unit=None, default_unit=OffsetUnit.BYTE
        )
        return pb.TokenClassificationResponse(
            results=[_result(tags, info.labels) for tags in answer.texts],
            model_id=info.name,
            metadata=dict(request.metadata),
        )

    async def _metadata(
        self, _request: metadata.GetModelMetadataRequest, context: Context
    ) -> metadata.GetModelMetadataResponse:
        info = self._inference.info(*_target(context))
        return metadata.GetModelMetadataResponse(
            model_id=info.name,
            model_type=metadata.TOKEN_CLASSIFICATION,
            id2label=dict(enumerate(info.labels)),
        )


def _target(context: Context) -> tuple[str | None, str | None]:
    sent = dict(context.invocation_metadata() or ())

    def text(key: str) -> str | None:
        value = sent.get(key)
        return value if isinstance(value, str) else None

    return text(MODEL_KEY), text(VERSION_KEY)


def _result(tags: TokenTags, labels: tuple[str, ...]) -> pb.TokenClassificationResult:
    rows = zip(
        tags.pieces, tags.ids, tags.start, tags.end, tags.logits, tags.best.tolist(), strict=True
    )
    return pb.TokenClassificationResult(
        tokens=[
            pb.TokenClassification(
                token_info=token_pb2.TokenInfo(token=piece, token_id=number, start=start, end=end),
                scores=scores.tolist(),
                label=labels[best],
                score=float(scores[best]),
            )
            for piece, number, start, end, scores, best in rows
        ]
    )
