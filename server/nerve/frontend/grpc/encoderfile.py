"""Encoderfile's TokenClassificationInference service (its contract, section 3)."""

from __future__ import annotations

from typing import Final

from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as pb
from nerve._proto.encoderfile import token_pb2
from nerve.config.server import ServerConfig
from nerve.exchange import Access, Exchanges
from nerve.frontend.encoderfile_wording import wording
from nerve.frontend.grpc.calls import Bind, Shell, unary
from nerve.frontend.grpc.metadata import Context, answered_by, call, target, texts_of
from nerve.frontend.guard import Guard
from nerve.offload import offload, small_answer
from nerve.service.inference import InferenceService
from nerve.types import TokenTags
from nerve.words import OffsetUnit

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""By the contract; the server itself takes more."""


class EncoderfileService:
    """The two methods. The model is named by request metadata, else it is the default one."""

    name = "encoderfile.token_classification.TokenClassificationInference"

    def __init__(
        self, inference: InferenceService, config: ServerConfig, exchanges: Exchanges, guard: Guard
    ) -> None:
        self._inference, self._config = inference, config
        self.shell = Shell(
            "encoderfile-grpc", exchanges, guard, text=wording, max_bytes=MAX_MESSAGE_BYTES
        )

    def methods(self) -> dict[str, Bind]:
        """What answers each method."""
        shell = self.shell
        return {
            "Predict": unary(
                pb.TokenClassificationRequest, self._predict, shell=shell, access=Access.PREDICT
            ),
            "GetModelMetadata": unary(
                metadata.GetModelMetadataRequest, self._metadata, shell=shell, access=Access.READ
            ),
        }

    async def _predict(
        self, request: pb.TokenClassificationRequest, context: Context, _size: int
    ) -> bytes:
        info, answer = await self._inference.tokens(
            call(context, self._inference, max_texts=self._config.max_inputs),
            texts_of(request.inputs, self._config.max_inputs),
            offset_unit=None,
            default_unit=OffsetUnit.BYTE,
        )
        answered_by(context, info)

        def write() -> bytes:
            return pb.TokenClassificationResponse(
                results=[_result(tags, info.labels) for tags in answer.texts],
                model_id=info.name,
                metadata=dict(request.metadata),
            ).SerializeToString()

        small = small_answer(len(request.inputs), answer.statistics.tokens)
        return await offload(write, inline=small)

    async def _metadata(
        self, _request: metadata.GetModelMetadataRequest, context: Context, _size: int
    ) -> bytes:
        info = self._inference.info(*target(context))
        return metadata.GetModelMetadataResponse(
            model_id=info.name,
            model_type=metadata.TOKEN_CLASSIFICATION,
            id2label=dict(enumerate(info.labels)),
        ).SerializeToString()


def _result(tags: TokenTags, labels: tuple[str, ...]) -> pb.TokenClassificationResult:
    return pb.TokenClassificationResult(
        tokens=[
            pb.TokenClassification(
                token_info=token_pb2.TokenInfo(token=piece, token_id=number, start=start, end=end),
                scores=scores.tolist(),
                label=labels[best],
                score=float(score),
            )
            for piece, number, start, end, scores, best, score in tags.rows()
        ]
    )
