"""One message of nerve.v1's ExtractStream: items that run together and fail alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.errors import (
    EmptyInput,
    InferenceFailed,
    NerveError,
    NonFiniteScores,
    ServerFault,
    TextTooLong,
    TokenizationFailed,
    TooManyInputs,
)
from nerve.frontend.grpc.calls import Shell, presentable
from nerve.frontend.grpc.metadata import Context, call
from nerve.frontend.grpc.nerve_answers import entities
from nerve.frontend.grpc.nerve_requests import extract_request
from nerve.frontend.status import retry_after_s
from nerve.offload import INLINE_BYTES, offload, small_answer
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.types import ModelInfo, Span

MOST_REFUSED: Final = 4
"""Times the texts that are taken; a message with more items than that ends its stream."""
IN_FLIGHT: Final = 256
"""Items of one stream that are read and not answered yet."""
OF_ONE_TEXT: Final = (TextTooLong, TokenizationFailed, InferenceFailed, NonFiniteScores)
"""What fails because of a text: the others of its message may be fine."""

Outcome: TypeAlias = list[Span] | Exception


@dataclass(frozen=True, slots=True)
class Done:
    """Outcomes in the order of the texts; `info` is of who answered, None if all failed."""

    outcomes: Sequence[Outcome]
    info: ModelInfo | None = None
    tokens: int = 0
    truncated_texts: int = 0


def weight(request: pb.ExtractStreamRequest, size: int) -> int:
    """What a message of `size` bytes counts of `IN_FLIGHT`."""
    return max(1, len(request.items), size // INLINE_BYTES)


class Bulk:
    """Answers messages of streams."""

    def __init__(self, inference: InferenceService, shell: Shell, *, max_texts: int) -> None:
        self._inference, self._shell, self._max_texts = inference, shell, max_texts

    async def answer(self, request: pb.ExtractStreamRequest, context: Context, _size: int) -> bytes:
        """A result or an error for each item; never raises for one of them.

        Raises:
            TooManyInputs: so many that even to tell each of them would be too much.
        """
        done = await self._all(request, context)
        self._inference.count_items([_reason(outcome) for outcome in done.outcomes])

        def write() -> bytes:
            results = zip(request.items, done.outcomes, strict=True)
            return pb.ExtractStreamResponse(
                model=done.info.name if done.info else "",
                version=str(done.info.version) if done.info else "",
                results=[self._result(item.id, outcome) for item, outcome in results],
                truncated_texts=done.truncated_texts,
            ).SerializeToString()

        return await offload(write, inline=small_answer(len(request.items), done.tokens))

    async def _all(self, request: pb.ExtractStreamRequest, context: Context) -> Done:
        count = len(request.items)
        if not count:
            return Done([])
        if count > self._max_texts:
            many = TooManyInputs(count, self._max_texts)
            if count > MOST_REFUSED * self._max_texts:
                raise many
            return Done([many] * count)
        texts = [item.text for item in request.items if item.text]
        try:
            asked = extract_request(texts, request.options)
            given = call(
                context,
                self._inference,
                max_texts=self._max_texts,
                model=request.model,
                version=request.version,
            )
            done = await self._together(given, asked) if texts else Done([])
        except Exception as error:  # noqa: BLE001  boundary: the stream goes on
            return Done([error] * count)
        if len(texts) == count:
            return done
        rest = iter(done.outcomes)
        return replace(
            done,
            outcomes=[
                next(rest) if item.text else EmptyInput(f"items[{index}].text")
                for index, item in enumerate(request.items)
            ],
        )

    async def _together(self, given: Call, asked: SpanRequest) -> Done:
        try:
            info, answer = await self._inference.spans(given, asked)
        except OF_ONE_TEXT as error:
            if len(asked.texts) == 1:
                return Done([error])
            return await self._one_by_one(given, asked)
        counts = answer.statistics
        return Done(answer.spans, info, counts.tokens, counts.truncated_texts)

    async def _one_by_one(self, given: Call, asked: SpanRequest) -> Done:
        # Of one version, though routing may share out calls that name none.
        info = self._inference.info(given.model, given.version)
        given = replace(given, model=info.name, version=str(info.version))
        parts = await asyncio.gather(
            *(self._alone(given, replace(asked, texts=[text])) for text in asked.texts)
        )
        return Done(
            [part.outcomes[0] for part in parts],
            next((part.info for part in parts if part.info), None),
            sum(part.tokens for part in parts),
            sum(part.truncated_texts for part in parts),
        )

    async def _alone(self, given: Call, asked: SpanRequest) -> Done:
        try:
            return await self._together(given, asked)
        except Exception as error:  # noqa: BLE001  boundary: the others are fine
            return Done([error])

    def _result(self, number: str, outcome: Outcome) -> pb.ExtractItemResult:
        if not isinstance(outcome, Exception):
            return pb.ExtractItemResult(id=number, entities=entities(outcome))
        fault = presentable(outcome)
        return pb.ExtractItemResult(
            id=number,
            error=pb.Error(
                code=self._shell.code(fault).value[0],
                reason=fault.reason,
                message=self._shell.text(fault),
                retry_after_s=retry_after_s(fault) or 0,
            ),
        )


def _reason(outcome: Outcome) -> str:
    """What the metrics call the outcome of an item."""
    if not isinstance(outcome, Exception):
        return "ok"
    return outcome.reason if isinstance(outcome, NerveError) else ServerFault.reason
