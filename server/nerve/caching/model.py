"""A loaded model that answers a text which it had before from memory. Wraps `nerve.types.ServedModel`.

A load makes a wrapper of its own, so what one load answered is never taken for another's. What is
kept is the answer, before the filters of a request: of a text under the options that change it.
Logits of rows, tokenizing and detokenizing go straight through.
"""

from __future__ import annotations

from collections.abc import Sequence

from nerve.caching.answering import Answers, Made
from nerve.caching.options import Asking
from nerve.caching.store import tags_of
from nerve.config.model import ModelConfig
from nerve.metrics.cache import CacheMetrics
from nerve.types import (
    CutOptions,
    EngineStatistics,
    LogitsAnswer,
    ModelInfo,
    Row,
    ServedModel,
    SpanAnswer,
    SpanOptions,
    TextTokens,
    TokenAnswer,
)
from nerve.words import OffsetUnit


class CachedModel:
    """`nerve.types.ServedModel` with a response cache."""

    def __init__(
        self, model: ServedModel, *, max_bytes: int, default_priority: int, metrics: CacheMetrics
    ) -> None:
        """Wrap a model, which is closed with this.

        Args:
            model: what answers.
            max_bytes: most that its answers may hold.
            default_priority: the model's, of requests that name none.
            metrics: what this counts in.
        """
        info = model.info
        self._model, self._priority = model, default_priority
        counts = metrics.of(info.name, info.version)
        self._answers = Answers(info.name, max_bytes=max_bytes, metrics=counts)
        self._asking = Asking(info)

    @property
    def info(self) -> ModelInfo:
        """Facts that do not change while it is loaded."""
        return self._model.info

    def statistics(self) -> EngineStatistics:
        """The engine's totals."""
        return self._model.statistics()

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        """See `nerve.types.ServedModel.spans`."""

        async def ask(missing: list[str]) -> Made:
            answer = await self._model.spans(missing, options, deadline=deadline, priority=priority)
            return Made(answer.spans, None, answer.statistics)

        keys = self._asking.keys("spans", texts, options)
        found, statistics = await self._answers.get(
            keys, ask, deadline=deadline, priority=priority or self._priority
        )
        return SpanAnswer([list(each.spans or ()) for each in found], statistics)

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

        async def ask(missing: list[str]) -> Made:
            answer = await self._model.tokens(
                missing, unit=unit, cut=cut, deadline=deadline, priority=priority
            )
            return Made(None, answer.texts, answer.statistics)

        keys = self._asking.token_keys(texts, unit, cut)
        found, statistics = await self._answers.get(
            keys, ask, deadline=deadline, priority=priority or self._priority
        )
        return TokenAnswer([tags_of(each.tags) for each in found if each.tags], statistics)

    async def spans_and_tokens(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[SpanAnswer, TokenAnswer]:
        """See `nerve.types.ServedModel.spans_and_tokens`."""

        async def ask(missing: list[str]) -> Made:
            spans, tokens = await self._model.spans_and_tokens(
                missing, options, deadline=deadline, priority=priority
            )
            return Made(spans.spans, tokens.texts, spans.statistics)

        keys = self._asking.keys("both", texts, options)
        found, statistics = await self._answers.get(
            keys, ask, deadline=deadline, priority=priority or self._priority
        )
        return (
            SpanAnswer([list(each.spans or ()) for each in found], statistics),
            TokenAnswer([tags_of(each.tags) for each in found if each.tags], statistics),
        )

    async def logits(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> LogitsAnswer:
        """See `nerve.types.ServedModel.logits`."""
        return await self._model.logits(rows, deadline=deadline, priority=priority)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool | None,
        unit: OffsetUnit,
        max_tokens: int,
    ) -> list[TextTokens]:
        """See `nerve.types.ServedModel.tokenize`."""
        return await self._model.tokenize(
            texts, add_special_tokens=add_special_tokens, unit=unit, max_tokens=max_tokens
        )

    async def decode(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """See `nerve.types.ServedModel.decode`."""
        return await self._model.decode(rows, skip_special_tokens=skip_special_tokens)

    async def aclose(self) -> None:
        """Free the model and all answers."""
        try:
            await self._model.aclose()
        finally:
            await self._answers.aclose()


def cached(model: ServedModel, config: ModelConfig, metrics: CacheMetrics) -> ServedModel:
    """The model with a response cache if its config has one, else itself."""
    if not config.response_cache.enable:
        return model
    return CachedModel(
        model,
        max_bytes=config.response_cache.max_bytes,
        default_priority=config.dynamic_batching.default_priority,
        metrics=metrics,
    )
