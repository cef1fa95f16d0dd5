"""Our own service, nerve.v1.Nerve; proto/nerve/v1/nerve.proto is its contract."""

from __future__ import annotations

from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.config.server import ServerConfig
from nerve.exchange import Access, Exchanges
from nerve.frontend.grpc import nerve_answers as answers
from nerve.frontend.grpc.calls import Bind, Shell, unary
from nerve.frontend.grpc.metadata import Context, answered_by, call, target, texts_of
from nerve.frontend.grpc.nerve_bulk import IN_FLIGHT, Bulk, weight
from nerve.frontend.grpc.nerve_requests import (
    extract_request,
    predict_tokens_request,
    unit_of,
    wording,
)
from nerve.frontend.grpc.streams import stream
from nerve.frontend.guard import Guard
from nerve.offload import offload, small_answer
from nerve.service.control import ControlService
from nerve.service.inference import Call, InferenceService
from nerve.words import OffsetUnit


class NerveService:
    """The six methods."""

    name = "nerve.v1.Nerve"

    def __init__(
        self,
        inference: InferenceService,
        control: ControlService,
        config: ServerConfig,
        exchanges: Exchanges,
        guard: Guard,
    ) -> None:
        self._inference, self._control = inference, control
        self._max_texts = config.max_inputs
        self.shell = Shell("nerve-grpc", exchanges, guard, text=wording)
        self._bulk = Bulk(inference, self.shell, max_texts=config.max_inputs)

    def methods(self) -> dict[str, Bind]:
        """What answers each method."""
        shell = self.shell
        return {
            "Extract": unary(pb.ExtractRequest, self._extract, shell=shell, access=Access.PREDICT),
            "ExtractStream": stream(
                pb.ExtractStreamRequest,
                self._bulk.answer,
                shell=shell,
                in_flight=IN_FLIGHT,
                access=Access.PREDICT,
                weight=weight,
            ),
            "PredictTokens": unary(
                pb.PredictTokensRequest, self._predict_tokens, shell=shell, access=Access.PREDICT
            ),
            "Predict": unary(pb.PredictRequest, self._predict, shell=shell, access=Access.PREDICT),
            "ListModels": unary(
                pb.ListModelsRequest, self._list_models, shell=shell, access=Access.READ
            ),
            "GetModel": unary(pb.GetModelRequest, self._get_model, shell=shell, access=Access.READ),
        }

    def _call(
        self,
        request: pb.ExtractRequest | pb.PredictTokensRequest | pb.PredictRequest,
        context: Context,
    ) -> Call:
        return call(
            context,
            self._inference,
            max_texts=self._max_texts,
            model=request.model,
            version=request.version,
        )

    async def _extract(self, request: pb.ExtractRequest, context: Context, _size: int) -> bytes:
        asked = extract_request(texts_of(request.texts, self._max_texts), request.options)
        info, answer = await self._inference.spans(self._call(request, context), asked)
        answered_by(context, info)

        def write() -> bytes:
            return pb.ExtractResponse(
                model=info.name,
                version=str(info.version),
                results=[answers.entities(spans) for spans in answer.spans],
                truncated_texts=answer.statistics.truncated_texts,
            ).SerializeToString()

        small = small_answer(len(asked.texts), answer.statistics.tokens)
        return await offload(write, inline=small)

    async def _predict_tokens(
        self, request: pb.PredictTokensRequest, context: Context, _size: int
    ) -> bytes:
        asked = predict_tokens_request(request, self._max_texts)
        info, answer = await self._inference.spans(self._call(request, context), asked)
        answered_by(context, info)

        def write() -> bytes:
            return pb.PredictTokensResponse(
                model=info.name,
                version=str(info.version),
                results=[
                    answers.token_results(spans, info.labels, all_scores=asked.raw_scores)
                    for spans in answer.spans
                ],
                truncated_texts=answer.statistics.truncated_texts,
            ).SerializeToString()

        small = small_answer(len(asked.texts), answer.statistics.tokens)
        return await offload(write, inline=small)

    async def _predict(self, request: pb.PredictRequest, context: Context, _size: int) -> bytes:
        info, answer = await self._inference.tokens(
            self._call(request, context),
            texts_of(request.texts, self._max_texts),
            offset_unit=unit_of(request.offset_unit, "offset_unit"),
            default_unit=OffsetUnit.CODEPOINT,
        )
        answered_by(context, info)

        def write() -> bytes:
            return pb.PredictResponse(
                model=info.name,
                version=str(info.version),
                results=[answers.tokens(tags, info.labels) for tags in answer.texts],
                truncated_texts=answer.statistics.truncated_texts,
                labels=info.labels,
            ).SerializeToString()

        small = small_answer(len(request.texts), answer.statistics.tokens)
        return await offload(write, inline=small)

    async def _list_models(
        self, _request: pb.ListModelsRequest, _context: Context, _size: int
    ) -> bytes:
        return answers.model_list(self._control.models()).SerializeToString()

    async def _get_model(self, request: pb.GetModelRequest, context: Context, _size: int) -> bytes:
        status = self._control.model(request.model or target(context)[0])
        return answers.model_status(status).SerializeToString()
