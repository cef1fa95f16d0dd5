"""One model version end to end: texts -> rows -> engine -> scores -> spans. Joins both seams."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np

from nerve.errors import InferenceFailed, NerveError, NonFiniteScores
from nerve.exchange import recorded
from nerve.pipeline.scored import Scored
from nerve.pipeline.text_side import TextSide
from nerve.pipeline.tokenizer import TextTokenizer
from nerve.pipeline.windows import EncodedText
from nerve.types import (
    NO_RUNS,
    CallStatistics,
    CutOptions,
    Engine,
    EngineStatistics,
    FloatArray,
    IntArray,
    LogitsAnswer,
    ModelInfo,
    Row,
    RowResult,
    RunTimes,
    ScoreTransform,
    SpanAnswer,
    SpanOptions,
    TextCost,
    TextTokens,
    TokenAnswer,
)
from nerve.words import OffsetUnit


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


class _Ran(NamedTuple):
    """Finite logits of each row; mean seconds in the queue and in the run; seconds of all."""

    logits: list[FloatArray]
    queue_s: float
    inference_s: float
    runs: RunTimes


def run_times(results: Sequence[RowResult]) -> RunTimes:
    """What the runs took that a call's rows were in; the rows were queued at the same time. Pure.

    Runs that happened at the same time, on several instances, do not count for more than the time
    from the first one's begin to the last one's end.
    """
    if not results:
        return NO_RUNS
    if len(results) == 1:  # most requests
        (only,) = results
        return RunTimes(only.queue_s, only.padding_s, only.inference_s - only.padding_s)
    runs = {(each.queue_s, each.inference_s, each.padding_s) for each in results}
    end = max(queue_s + inference_s for queue_s, inference_s, _ in runs)
    in_a_row = sum(inference_s for _, inference_s, _ in runs)
    took = min(in_a_row, end - min(queue_s for queue_s, _, _ in runs))
    padding = sum(padding_s for _, _, padding_s in runs) * (took / in_a_row if in_a_row else 1.0)
    return RunTimes(end - took, padding, took - padding)


def _decoded(statistics: CallStatistics, since: float, texts: int) -> CallStatistics:
    """With the time from `since` (monotonic seconds) until now as what decoding took."""
    now = time.monotonic()
    if (exchange := recorded()) is not None:  # what was noted last may be the transform
        exchange.stage("decode", max(since, exchange.stages[-1].ended), now)
    return statistics._replace(decoding_s=(now - since) / texts)


class NerModel:
    """`nerve.types.ServedModel` made of a tokenizer, an engine, a decoder, perhaps a transform."""

    def __init__(
        self,
        info: ModelInfo,
        *,
        tokenizer: TextTokenizer,
        engine: Engine,
        transform: ScoreTransform | None = None,
        probabilities: bool = False,
    ) -> None:
        """`probabilities` tells what the transform's scores are; it is closed with the model."""
        self._info, self._engine = info, engine
        self._transform, self._probabilities = transform, probabilities
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
            came = time.monotonic()
            scored = await self._scored(texts, encoded, logits, deadline)
            spans = await self._text_side.spans(scored, options)
        return SpanAnswer(spans, _decoded(statistics, came, len(texts)))

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
            came = time.monotonic()
            scored = await self._scored(texts, encoded, logits, deadline)
            tags = await self._text_side.tags(scored, unit)
        return TokenAnswer(tags, _decoded(statistics, came, len(texts)))

    async def spans_and_tokens(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[SpanAnswer, TokenAnswer]:
        """See `nerve.types.ServedModel.spans_and_tokens`."""
        with self._text_side.call():
            encoded, logits, statistics = await self.run(texts, options.cut, deadline, priority)
            came = time.monotonic()
            scored = await self._scored(texts, encoded, logits, deadline)
            spans = await self._text_side.spans(scored, options)
            tags = await self._text_side.tags(scored, options.offset_unit)
        statistics = _decoded(statistics, came, len(texts))
        return SpanAnswer(spans, statistics), TokenAnswer(tags, statistics)

    async def logits(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> LogitsAnswer:
        """See `nerve.types.ServedModel.logits`."""
        ran = await self._infer(rows, deadline, priority)
        statistics = CallStatistics(
            tokens=sum(len(row.ids) for row in rows),
            truncated_texts=0,
            tokenization_s=0.0,
            queue_s=ran.queue_s,
            inference_s=ran.inference_s,
            runs=ran.runs,
        )
        return LogitsAnswer(ran.logits, statistics)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool | None,
        unit: OffsetUnit,
        max_tokens: int,
    ) -> list[TextTokens]:
        """See `nerve.types.ServedModel.tokenize`."""
        return await self._text_side.tokenize(
            texts, special=add_special_tokens, unit=unit, max_tokens=max_tokens
        )

    async def decode(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """See `nerve.types.ServedModel.decode`."""
        return await self._text_side.texts_of(rows, skip_special_tokens=skip_special_tokens)

    def encode(self, texts: Sequence[str], cut: CutOptions) -> list[EncodedText]:
        """Tokenize, in this thread. Raises TextTooLong, TokenizationFailed."""
        return self._text_side.encode_here(texts, cut)

    def rows(self, encoded: Sequence[EncodedText]) -> list[Row]:
        """A row for the engine for each window of each text, in order."""
        typed = self._info.type_ids
        return [
            Row(window.ids, window.type_ids if typed and window.type_ids.any() else None)
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

        Without the transform. Raises as `nerve.types.ServedModel.spans`.
        """
        began = time.monotonic()
        self._engine.check_room()  # before the work of tokenizing
        if self._transform is not None:
            self._transform.check_room()
        encoded = await self._text_side.encode(texts, cut)
        tokenized = time.monotonic()
        if (exchange := recorded()) is not None:
            exchange.stage("tokenize", began, tokenized)
        ran = await self._infer(self.rows(encoded), deadline, priority)
        each = tuple(
            TextCost(sum(len(window.ids) for window in text.windows), text.truncated)
            for text in encoded
        )
        statistics = CallStatistics(
            tokens=sum(cost.tokens for cost in each),
            truncated_texts=sum(cost.truncated for cost in each),
            tokenization_s=(tokenized - began) / len(texts),
            queue_s=ran.queue_s,
            inference_s=ran.inference_s,
            runs=ran.runs,
            each=each,
        )
        return encoded, ran.logits, statistics

    async def _scored(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
        deadline: float | None,
    ) -> Scored:
        """What the transform makes of the logits, if there is one. Raises as its `apply`."""
        if self._transform is None:
            return Scored(texts, encoded, logits)
        began = time.monotonic()
        made = await self._transform.apply(logits, deadline=deadline)
        if (exchange := recorded()) is not None:
            exchange.stage("transform", began, time.monotonic())
        if any(row.ndim == 1 for row in made):
            return Scored(texts, encoded, logits, chosen=cast("list[IntArray]", made))
        return Scored(texts, encoded, cast("list[FloatArray]", made), self._probabilities)

    async def _infer(
        self, rows: Sequence[Row], deadline: float | None, priority: int | None
    ) -> _Ran:
        # A row without any token (no special ones, empty text) has nothing to run.
        filled = [row for row in rows if len(row.ids)]
        ran: list[RowResult] = []
        if filled:
            began = time.monotonic()
            try:
                ran = await self._engine.infer(filled, deadline=deadline, priority=priority)
            except NerveError as error:  # in the queue or in a run
                if (exchange := recorded()) is not None:
                    exchange.stage("infer", began, time.monotonic(), reason=error.reason)
                raise
            if (exchange := recorded()) is not None:
                exchange.add_runs(began, ran)
        results: Iterator[RowResult] = iter(ran)
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
        return _Ran(logits, queue_s, inference_s, run_times(ran))

    async def aclose(self) -> None:
        """Free the engine, end the transform's process."""
        try:
            await self._engine.aclose()
        finally:
            if self._transform is not None:
                await self._transform.aclose()
