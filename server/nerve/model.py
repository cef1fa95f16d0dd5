"""One model version end to end: texts -> rows -> engine -> scores -> spans. Joins both seams."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from nerve.errors import InferenceFailed, NonFiniteScores
from nerve.pipeline.text_side import Scored, TextSide
from nerve.pipeline.tokenizer import TextTokenizer
from nerve.pipeline.windows import EncodedText
from nerve.types import (
    CallStatistics,
    CutOptions,
    Engine,
    EngineStatistics,
    FloatArray,
    ModelInfo,
    OffsetUnit,
    Row,
    RowResult,
    SpanAnswer,
    SpanOptions,
    TokenAnswer,
)


def check_logits(info: ModelInfo, logits: FloatArray) -> None:
    """Refuse scores that cannot be decoded; `logits` (…, labels).

    Raises:
        InferenceFailed: there are not as many as labels.
        NonFiniteScores: NaN or infinity among them.
    """
    if (width := logits.shape[-1]) != len(info.labels):
        detail = f"there are {len(info.labels)} labels, but the graph puts out {width}"
        raise InferenceFailed(info.name, detail)
    if not np.isfinite(logits).all():
        raise NonFiniteScores(info.name)


class NerModel:
    """`nerve.types.ServedModel` made of a tokenizer, an engine and a decoder."""

    def __init__(
        self, info: ModelInfo, *, tokenizer: TextTokenizer, engine: Engine, type_ids: bool
    ) -> None:
        self._info, self._engine, self._type_ids = info, engine, type_ids
        self._text_side = TextSide(tokenizer, info.labels)

    @property
    def info(self) -> ModelInfo:
        """Facts that do not change while it is loaded."""
        return self._info

    def statistics(self) -> EngineStatistics:
        """The engine's totals."""
        return self._engine.statistics()

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        """See `nerve.types.ServedModel.spans`."""
        with self._text_side.call():
            encoded, logits, statistics = await self.run(texts, options.cut, deadline, priority)
            spans = await self._text_side.spans(Scored(texts, encoded, logits), options)
        return SpanAnswer(spans, statistics)

    async def tokens(
        self,
        texts: Sequence[str],
        *,
        unit: OffsetUnit,
        cut: CutOptions,
        deadline: float | None,
        priority: int | None = None,
    ) -> TokenAnswer:
        """See `nerve.types.ServedModel.tokens`."""
        with self._text_side.call():
            encoded, logits, statistics = await self.run(texts, cut, deadline, priority)
            tags = await self._text_side.tags(Scored(texts, encoded, logits), unit)
        return TokenAnswer(tags, statistics)

    def encode(self, texts: Sequence[str], cut: CutOptions) -> list[EncodedText]:
        """Tokenize, in this thread. Raises TextTooLong, TokenizationFailed."""
        return self._text_side.encode_here(texts, cut)

    def rows(self, encoded: Sequence[EncodedText]) -> list[Row]:
        """A row for the engine for each window of each text, in order."""
        return [
            Row(window.ids, window.type_ids if self._type_ids and window.type_ids.any() else None)
            for text in encoded
            for window in text.windows
        ]

    async def run(
        self,
        texts: Sequence[str],
        cut: CutOptions,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[list[EncodedText], list[FloatArray], CallStatistics]:
        """Encode and run: the texts' windows, and the finite logits of each, in the same order.

        Raises as `nerve.types.ServedModel.spans`.
        """
        began = time.monotonic()
        self._engine.check_room()  # before the work of tokenizing
        encoded = await self._text_side.encode(texts, cut)
        tokenized = time.monotonic()
        rows = self.rows(encoded)
        # A row without any token (no special ones, empty text) has nothing to run.
        filled = [row for row in rows if len(row.ids)]
        results: Iterator[RowResult] = iter(())
        if filled:
            ran = await self._engine.infer(filled, deadline=deadline, priority=priority)
            results = iter(ran)
        empty = np.empty((0, len(self._info.labels)), dtype=np.float32)
        queue_s = inference_s = 0.0
        logits = []
        for row in rows:
            if len(row.ids) == 0:
                logits.append(empty)
                continue
            result = next(results)
            check_logits(self._info, result.logits)
            logits.append(result.logits)
            queue_s += result.queue_s / len(rows)
            inference_s += result.inference_s / len(rows)
        statistics = CallStatistics(
            tokens=sum(len(row.ids) for row in rows),
            truncated_texts=sum(text.truncated for text in encoded),
            tokenization_s=(tokenized - began) / len(texts),
            queue_s=queue_s,
            inference_s=inference_s,
        )
        return encoded, logits, statistics

    async def aclose(self) -> None:
        """Free the engine."""
        await self._engine.aclose()
