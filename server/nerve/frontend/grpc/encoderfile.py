"""Encoderfile's TokenClassificationInference service (its contract, section 3)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as pb
from nerve._proto.encoderfile import token_pb2
from nerve.config.server import ServerConfig
from nerve.errors import MalformedMessage, NerveError, ServerFault
from nerve.frontend.encoderfile_wording import wording
from nerve.frontend.grpc.server import abort, observed
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.metrics import RequestMetrics
from nerve.offload import INLINE_BYTES, offload, small_answer
from nerve.service.inference import Call, InferenceService
from nerve.types import OffsetUnit, TokenTags

SERVICE = "encoderfile.token_classification.TokenClassificationInference"
MODEL_KEY = "model-name"
VERSION_KEY = "model-version"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # a string: generic in the stubs only
RequestT = TypeVar("RequestT", bound=Message)


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
                    self._answer(pb.TokenClassificationRequest, self._predict)
                ),
                "GetModelMetadata": grpc.unary_unary_rpc_method_handler(
                    self._answer(metadata.GetModelMetadataRequest, self._metadata)
                ),
            },
        )

    def _answer(
        self,
        message: type[RequestT],
        method: Callable[[RequestT, Context], Awaitable[bytes]],
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Parse, answer, and turn errors into statuses.

        Bytes in and out, not grpc's own (de)serializers: those run on the event loop whatever the
        size, and a message that cannot be read would be UNKNOWN with a traceback.
        """

        async def answer(body: bytes, context: Context) -> bytes:
            async with observed(self._metrics, "encoderfile-grpc"):
                try:
                    request = await offload(
                        lambda: _parse(message, body), inline=len(body) <= INLINE_BYTES
                    )
                    return await method(request, context)
                except NerveError as error:
                    return await abort(context, error, wording(error))
                except Exception as error:  # noqa: BLE001  boundary: one request must not end the connection
                    fault = ServerFault("the server failed; its log tells why")
                    return await abort(context, fault, str(fault), cause=error)

        return answer

    async def _predict(self, request: pb.TokenClassificationRequest, context: Context) -> bytes:
        arrived = time.monotonic()
        model, version = _target(context)
        call = Call(
            model,
            version,
            self._inference.deadline(arrived, timeout_s=context.time_remaining()),
            self._config.max_inputs,
            priority=parse_priority(_sent(context).get(PRIORITY_KEY), place="metadata"),
            arrived=arrived,
        )
        info, answer = await self._inference.tokens(
            call, list(request.inputs), offset_unit=None, default_unit=OffsetUnit.BYTE
        )

        await context.send_initial_metadata(
            (("x-nerve-model", info.name), ("x-nerve-model-version", str(info.version)))
        )

        def write() -> bytes:
            return pb.TokenClassificationResponse(
                results=[_result(tags, info.labels) for tags in answer.texts],
                model_id=info.name,
                metadata=dict(request.metadata),
            ).SerializeToString()

        small = small_answer(len(request.inputs), answer.statistics.tokens)
        return await offload(write, inline=small)

    async def _metadata(
        self, _request: metadata.GetModelMetadataRequest, context: Context
    ) -> bytes:
        info = self._inference.info(*_target(context))
        return metadata.GetModelMetadataResponse(
            model_id=info.name,
            model_type=metadata.TOKEN_CLASSIFICATION,
            id2label=dict(enumerate(info.labels)),
        ).SerializeToString()


def _parse(message: type[RequestT], body: bytes) -> RequestT:
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise MalformedMessage(message.DESCRIPTOR.full_name) from error


def _sent(context: Context) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _target(context: Context) -> tuple[str | None, str | None]:
    sent = _sent(context)

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
