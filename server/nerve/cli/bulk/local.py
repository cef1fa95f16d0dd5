"""Texts tagged by the model in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from nerve.cli.bulk.records import Failed, Outcome, Tagged
from nerve.cli.bulk.window import Flight, Tagging
from nerve.cli.tagger import entity, open_app
from nerve.config.server import ServerConfig
from nerve.errors import (
    InferenceFailed,
    InvalidRequest,
    NonFiniteScores,
    QueueFull,
    TokenizationFailed,
    TransformDown,
    TransformFailed,
)
from nerve.service.inference import unit_of
from nerve.types import ServedModel, SpanOptions
from nerve.words import OffsetUnit, Strategy

FLIGHT: Final = Flight(calls=16, texts=32)
"""The engine forms batches of the first few hundred texts that wait."""
ATTEMPTS: Final = 20
"""For a transform that is not there just now."""
LONGEST_PAUSE_S: Final = 5.0
_OF_A_TEXT: Final = (
    InvalidRequest, TokenizationFailed, InferenceFailed, NonFiniteScores, TransformFailed
)  # fmt: skip


class LocalTagging:
    """Calls on one model."""

    def __init__(self, model: ServedModel, options: SpanOptions) -> None:
        self._model, self._options = model, options

    async def tag(self, texts: Sequence[str]) -> list[Outcome]:
        """See `Tag`. When texts fail together, each is tried alone.

        Raises:
            NerveError: the model does not answer any more.
        """
        try:
            return await self._patiently(texts)
        except _OF_A_TEXT as error:
            if len(texts) == 1:
                return [Failed(str(error))]
        return [outcome for text in texts for outcome in await self.tag([text])]

    async def _patiently(self, texts: Sequence[str]) -> list[Outcome]:
        attempts = 0
        while True:
            try:
                return await self._together(texts)
            except QueueFull as error:  # of our own texts, which are run meanwhile
                pause_s = error.wait_s
            except TransformDown as error:
                pause_s, attempts = error.wait_s, attempts + 1
                if attempts == ATTEMPTS:
                    raise
            await asyncio.sleep(min(max(pause_s, 0.01), LONGEST_PAUSE_S))

    async def _together(self, texts: Sequence[str]) -> list[Outcome]:
        answer = await self._model.spans(texts, self._options, deadline=None)
        return [
            Tagged([entity(span) for span in spans], cost.truncated)
            for spans, cost in zip(answer.spans, answer.statistics.each, strict=True)
        ]


@asynccontextmanager
async def open_local(config: ServerConfig) -> AsyncIterator[Tagging]:
    """The default model of `config`, or the only one. Raises as `nerve.cli.tagger.open_app`."""
    async with open_app(config) as app:
        copy = app.catalog.current(None, None)
        info = copy.served.info
        with app.catalog.lease(info.name, str(info.version)) as model:
            options = SpanOptions(
                info.aggregation_strategy or Strategy.MAX,
                offset_unit=unit_of(None, info, config, OffsetUnit.CODEPOINT),
            )
            identity = {
                "the model": info.name,
                "its version": info.version,
                "its content": copy.identity,
                "aggregation_strategy": options.strategy.value,
                "offset_unit": options.offset_unit.value,
            }
            yield Tagging(LocalTagging(model, options).tag, FLIGHT, identity)
