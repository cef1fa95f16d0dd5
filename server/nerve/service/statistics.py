"""What requests cost, by loaded copy of a version: counted as they end, told to whoever asks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

from nerve.errors import NerveError, ServerFault
from nerve.exchange import current
from nerve.metrics.versions import CANCELLED, OneVersion, VersionMetrics
from nerve.repository.catalog import Catalog
from nerve.types import CacheUse, CallStatistics, EngineStatistics, ModelInfo, ServedModel


@dataclass(slots=True)
class RequestTotals:
    """Requests of a loaded copy. Seconds of the stages are those of requests that succeeded, each
    charged with its runs whole, whoever else was in them."""

    succeeded: int = 0
    failed: int = 0
    """Of any error after the copy was chosen; callers that went away, too."""
    texts: int = 0
    """In requests that succeeded, without those that were not run because an answer was there or
    on its way; rows of those that brought token ids."""
    succeeded_s: float = 0.0
    """From arrival to answer."""
    failed_s: float = 0.0
    queue_s: float = 0.0
    input_s: float = 0.0
    """Tokenizing and padding."""
    running_s: float = 0.0
    output_s: float = 0.0
    """Decoding."""
    cache_hits: int = 0
    """Of those that succeeded at a copy with a response cache: nothing was run for them."""
    cache_hits_s: float = 0.0
    """Looking up what they got."""
    cache_misses: int = 0
    """Likewise: at least one text was run."""
    cache_misses_s: float = 0.0
    """Looking up, and keeping what was run."""
    last_ms: int = 0
    """End of the last one, in ms since 1970; 0 before the first."""


@dataclass(frozen=True, slots=True)
class VersionTotals:
    """A READY version since it was loaded."""

    model: str
    version: int
    requests: RequestTotals
    engine: EngineStatistics


class Recording:
    """A request at a copy, around its work: it has failed unless `succeed` was called."""

    __slots__ = ("_arrived", "_ended", "_exchange", "_metrics", "_totals")

    def __init__(
        self,
        totals: RequestTotals,
        arrived: float,
        info: ModelInfo,
        metrics: OneVersion | None = None,
    ) -> None:
        self._totals, self._arrived, self._ended = totals, arrived, False
        self._metrics = metrics
        self._exchange = current()
        if self._exchange is not None:
            self._exchange.info = info

    def succeed(self, texts: int, cost: CallStatistics) -> None:
        """It was answered, for so many texts."""
        self._ended, totals, runs = True, self._totals, cost.runs
        if self._exchange is not None:
            self._exchange.texts, self._exchange.cost = texts, cost
        if self._metrics is not None:
            self._metrics.answered(texts, cost)
        totals.succeeded += 1
        totals.texts += texts
        if cost.cached is not None:
            self._count_cache(texts, cost.cached)
        totals.succeeded_s += self._took_s()
        totals.queue_s += runs.waiting_s
        totals.input_s += cost.tokenization_s * texts + runs.padding_s
        totals.running_s += runs.running_s
        totals.output_s += cost.decoding_s * texts

    def _count_cache(self, texts: int, cached: CacheUse) -> None:
        totals = self._totals
        totals.texts -= cached.hits
        if cached.hits == texts:
            totals.cache_hits += 1
            totals.cache_hits_s += cached.seconds
        else:
            totals.cache_misses += 1
            totals.cache_misses_s += cached.seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(_outcome(error))

    def end(self, outcome: str) -> None:
        """It has failed unless it was answered; `outcome` as in the metrics."""
        if not self._ended:
            self._totals.failed += 1
            self._totals.failed_s += self._took_s()
            if self._metrics is not None:
                self._metrics.failed(outcome)
        self._totals.last_ms = time.time_ns() // 1_000_000

    def _took_s(self) -> float:
        return max(0.0, time.monotonic() - self._arrived)


def _outcome(error: BaseException | None) -> str:
    """What the metrics call it."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    return error.reason if isinstance(error, NerveError) else ServerFault.reason


class RequestStatistics:
    """Totals of every loaded copy, gone with it. Neither waits nor locks: for the event loop only."""

    def __init__(self, catalog: Catalog, metrics: VersionMetrics | None = None) -> None:
        """`metrics` count the same for Prometheus."""
        self._catalog, self._metrics = catalog, metrics
        self._totals: WeakKeyDictionary[ServedModel, RequestTotals] = WeakKeyDictionary()

    @property
    def copies(self) -> int:
        """How many have had requests and are still there."""
        return len(self._totals)

    def record(self, served: ServedModel, arrived: float) -> Recording:
        """Put this around the work of a request that arrived then (monotonic seconds)."""
        totals = self._totals.get(served)
        if totals is None:
            totals = self._totals[served] = RequestTotals()
        info, metrics = served.info, self._metrics
        counted = None if metrics is None else metrics.of(info.name, info.version)
        return Recording(totals, arrived, info, counted)

    def again(self, info: ModelInfo, reason: str) -> bool:
        """Count another failure like one before, without its work. False if the version has been
        unloaded since, or loaded again: `info` is the very object of the copy that failed."""
        model = self._catalog.entries.get(info.name)
        row = None if model is None else model.versions.get(info.version)
        if row is None or row.copy is None or row.copy.served.info is not info:
            return False
        recording = self.record(row.copy.served, time.monotonic())
        recording.end(reason)
        return True

    def versions(self, name: str | None, version: str | None) -> list[VersionTotals]:
        """READY versions by name and number: one, those of a model, or (without a name) all.

        Raises:
            ModelNotFound, VersionNotFound, ModelNotReady: of what was named.
        """
        if name is None:
            found = self._catalog.models()
        else:
            chosen = self._catalog.current(name, version).served
            if version is not None:
                return [self._of(chosen)]
            found = [self._catalog.model(name)]
        ready = [model.versions[number].served for model in found for number in model.ready()]
        return [self._of(served) for served in ready if served is not None]

    def _of(self, served: ServedModel) -> VersionTotals:
        info, totals = served.info, self._totals.get(served)
        requests = RequestTotals() if totals is None else replace(totals)
        return VersionTotals(info.name, info.version, requests, served.statistics())
