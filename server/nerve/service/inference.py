"""The data plane: checks that every dialect shares, the model's defaults, the lease, the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nerve.config.server import ServerConfig
from nerve.errors import EmptyInput, ModelNotReady, TooManyInputs
from nerve.metrics.entities import Found, in_spans, in_tags
from nerve.metrics.requests import RequestMetrics
from nerve.offload import offload
from nerve.repository.catalog import Catalog
from nerve.repository.lifecycle import State
from nerve.service.filtering import TAKE_ALL, SpanFilter
from nerve.service.shadow import COPY_PRIORITY, ShadowRunner
from nerve.service.statistics import RequestStatistics
from nerve.types import (
    CallStatistics,
    CutOptions,
    LogitsAnswer,
    ModelInfo,
    Row,
    SpanAnswer,
    SpanOptions,
    TokenAnswer,
)
from nerve.words import OffsetUnit, Strategy

COUNTED_INLINE_TOKENS: Final = 4096
"""Up to here an answer's entities are counted in well under a millisecond."""


@dataclass(frozen=True, slots=True)
class Call:
    """Whom a request is for and how long it may take.

    `model` and `version` as the client wrote them, None for the default; `deadline` in monotonic
    seconds, see `InferenceService.deadline`; `max_texts` is the dialect's limit; `priority` is 1
    (first) to 10, None for the model's default; `arrived` in monotonic seconds.
    """

    model: str | None
    version: str | None
    deadline: float | None
    max_texts: int
    priority: int | None = None
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class SpanRequest:
    """What a dialect asks of `spans`. None is "not said": the model's config decides, then the
    `default_…`, which is the dialect's. `check` raises if the version that answers cannot."""

    texts: Sequence[str]
    default_strategy: Strategy
    strategy: Strategy | None = None
    ignore_labels: frozenset[str] = frozenset({"O"})
    raw_scores: bool = False
    offset_unit: OffsetUnit | None = None
    cut: CutOptions = field(default_factory=CutOptions)
    only: SpanFilter = TAKE_ALL
    check: Callable[[ModelInfo], None] = lambda _: None


class InferenceService:
    """Answers inference requests of every protocol."""

    def __init__(self, catalog: Catalog, *, config: ServerConfig, metrics: RequestMetrics) -> None:
        self._catalog, self._config, self._metrics = catalog, config, metrics
        self.statistics = RequestStatistics(catalog, metrics.versions)
        """Of the requests of every protocol."""
        self._shadow = ShadowRunner(catalog, metrics, timeout_s=config.request_timeout_s)

    def deadline(self, now: float, *, timeout_s: float | None = None) -> float:
        """The deadline of a request that arrived at `now`: the caller's or the server's, if less."""
        limit = self._config.request_timeout_s
        return now + (limit if timeout_s is None else min(limit, timeout_s))

    def knows(self, model: str) -> bool:
        """Whether the repository has a model of that name, in whatever state."""
        return model in self._catalog.entries

    def require(self, model: str | None, version: str | None) -> None:
        """See that a version would answer. Raises what `Catalog.lease` raises."""
        self._catalog.current(model, version)

    def accept(self, call: Call, request: SpanRequest) -> str:
        """The name of the model of a request that can be answered later: now, or when that is loaded.

        Raises:
            EmptyInput, TooManyInputs, InvalidField: what `spans` would refuse.
            ModelNotFound, NoDefaultModel, VersionNotFound; ModelNotReady: and it is not LOADING.
        """
        check_texts(request.texts, call.max_texts)
        name = self._catalog.model(call.model).name
        try:
            info = self._catalog.current(name, call.version).served.info
        except ModelNotReady as error:
            if error.state != State.LOADING.value:
                raise
        else:
            self._options(request, info)
        return name

    def default(self, model: str | None) -> tuple[str, str]:
        """Name of the model that is meant, and of its version that would answer, "" if none would.

        Raises:
            ModelNotFound, NoDefaultModel.
        """
        name = self._catalog.model(model).name
        try:
            return name, str(self._catalog.current(name, None).served.info.version)
        except ModelNotReady:
            return name, ""

    def info(self, model: str | None, version: str | None) -> ModelInfo:
        """Facts of the version that would answer. Raises what `Catalog.lease` raises."""
        with self._catalog.lease(model, version) as served:
            return served.info

    async def spans(self, call: Call, request: SpanRequest) -> tuple[ModelInfo, SpanAnswer]:
        """Tag texts and join tokens into spans.

        Raises:
            EmptyInput, TooManyInputs; what `Catalog.lease` and `ServedModel.spans` raise.
        """
        texts = request.texts
        check_texts(texts, call.max_texts)
        with (
            self._catalog.lease(call.model, call.version) as model,
            self.statistics.record(model, call.arrived) as record,
        ):
            info = model.info
            options = self._options(request, info)
            answer = await model.spans(
                texts, options, deadline=_deadline(call, info), priority=call.priority
            )
            record.succeed(len(texts), answer.statistics)
            await self._count_spans(info, answer, options)
        if call.version is None:
            self._shadow.consider(
                info,
                answer,
                lambda other, until: other.spans(
                    texts, options, deadline=until, priority=COPY_PRIORITY
                ),
            )
        return info, _wanted(request.only, answer, info)

    async def spans_and_tokens(
        self, call: Call, request: SpanRequest
    ) -> tuple[ModelInfo, SpanAnswer, TokenAnswer]:
        """Spans as `spans` has them, and every token, from the same runs. Raises as `spans`."""
        check_texts(request.texts, call.max_texts)
        with (
            self._catalog.lease(call.model, call.version) as model,
            self.statistics.record(model, call.arrived) as record,
        ):
            info = model.info
            options = self._options(request, info)
            spans, tokens = await model.spans_and_tokens(
                request.texts,
                options,
                deadline=_deadline(call, info),
                priority=call.priority,
            )
            record.succeed(len(request.texts), spans.statistics)
            await self._count_spans(info, spans, options)
        return info, _wanted(request.only, spans, info), tokens

    async def logits(
        self, call: Call, rows: Callable[[ModelInfo], Sequence[Row]]
    ) -> tuple[ModelInfo, LogitsAnswer]:
        """Run rows of token ids; `rows` makes them for the version that answers, or raises.

        Raises:
            What `rows`, `Catalog.lease` and `ServedModel.logits` raise.
        """
        with (
            self._catalog.lease(call.model, call.version) as model,
            self.statistics.record(model, call.arrived) as record,
        ):
            info = model.info
            made = rows(info)
            answer = await model.logits(
                made, deadline=_deadline(call, info), priority=call.priority
            )
            record.succeed(len(made), answer.statistics)
        return info, answer

    async def tokens(
        self,
        call: Call,
        texts: Sequence[str],
        *,
        offset_unit: OffsetUnit | None,
        default_unit: OffsetUnit,
    ) -> tuple[ModelInfo, TokenAnswer]:
        """Tag texts token by token; long ones are cut. Raises as `spans`."""
        check_texts(texts, call.max_texts)
        with (
            self._catalog.lease(call.model, call.version) as model,
            self.statistics.record(model, call.arrived) as record,
        ):
            info = model.info
            unit, cut = unit_of(offset_unit, info, self._config, default_unit), CutOptions()
            answer = await model.tokens(
                texts,
                unit=unit,
                cut=cut,
                deadline=_deadline(call, info),
                priority=call.priority,
            )
            record.succeed(len(texts), answer.statistics)
            await self._count_found(
                info, answer.statistics, lambda: in_tags(answer.texts, info.labels)
            )
        if call.version is None:
            self._shadow.consider(
                info,
                answer,
                lambda other, until: other.tokens(
                    texts, unit=unit, cut=cut, deadline=until, priority=COPY_PRIORITY
                ),
            )
        return info, answer

    async def aclose(self) -> None:
        """Give up what runs for nobody: copies for shadow versions."""
        await self._shadow.aclose()

    def _options(self, request: SpanRequest, info: ModelInfo) -> SpanOptions:
        request.check(info)
        request.only.check(info, raw_scores=request.raw_scores)
        return SpanOptions(
            strategy=request.strategy or info.aggregation_strategy or request.default_strategy,
            ignore_labels=request.ignore_labels,
            raw_scores=request.raw_scores,
            offset_unit=unit_of(request.offset_unit, info, self._config, OffsetUnit.CODEPOINT),
            cut=request.cut,
        )

    async def _count_spans(self, info: ModelInfo, answer: SpanAnswer, options: SpanOptions) -> None:
        tokens = options.strategy is Strategy.NONE
        await self._count_found(
            info,
            answer.statistics,
            lambda: in_spans(answer.spans, tokens=tokens, raw_scores=options.raw_scores),
        )

    async def _count_found(
        self, info: ModelInfo, cost: CallStatistics, find: Callable[[], Found]
    ) -> None:
        """Count what an answer has found, while the model is leased."""
        found = await offload(find, inline=cost.tokens <= COUNTED_INLINE_TOKENS)
        self._metrics.entities.observe(info.name, found)

    def count_items(self, reasons: Sequence[str]) -> None:
        """Count the items of a message of a stream: "ok", or why one failed."""
        self._metrics.observe_items(reasons)


def _deadline(call: Call, info: ModelInfo) -> float | None:
    """The call's own, or that of the model's config if it comes first."""
    if info.default_timeout_s is None:
        return call.deadline
    limit = call.arrived + info.default_timeout_s
    return limit if call.deadline is None else min(call.deadline, limit)


def _wanted(only: SpanFilter, answer: SpanAnswer, info: ModelInfo) -> SpanAnswer:
    return answer if only.takes_all else replace(answer, spans=only.keep(answer.spans, info))


def unit_of(
    requested: OffsetUnit | None, info: ModelInfo, config: ServerConfig, default: OffsetUnit
) -> OffsetUnit:
    """What offsets count: by the request, the model, the server, or else the dialect."""
    return requested or info.offset_unit or config.offset_unit or default


def check_texts(texts: Sequence[str], limit: int) -> None:
    """Refuse what no model should see.

    Raises:
        EmptyInput, TooManyInputs.
    """
    if not texts:
        raise EmptyInput("inputs")
    if len(texts) > limit:
        raise TooManyInputs(len(texts), limit)
    if "" in texts:
        raise EmptyInput(f"inputs[{list(texts).index('')}]")
