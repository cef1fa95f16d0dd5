"""What response caches count."""

from __future__ import annotations

import collections

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """What caches count and hold, by model and version; one without a cache has no series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["model", "version"]
        self.hits = Counter(
            "nerve_cache_hits",
            "Texts answered without a run of their own: from the cache, or with an equal text "
            "that was on its way",
            labels,
            registry=registry,
        )
        self.misses = Counter(
            "nerve_cache_misses", "Texts that were not in the cache", labels, registry=registry
        )
        self.evictions = Counter(
            "nerve_cache_evictions", "Answers dropped to make room", labels, registry=registry
        )
        self.bytes = Gauge(
            "nerve_cache_bytes", "Memory that kept answers hold", labels, registry=registry
        )
        self.entries = Gauge("nerve_cache_entries", "Answers kept", labels, registry=registry)
        self._users: collections.Counter[tuple[str, str]] = collections.Counter()

    def of(self, model: str, version: int) -> CopyCacheMetrics:
        """Those of one loaded copy of a version; `close` them with it."""
        self._users[model, str(version)] += 1
        return CopyCacheMetrics(self, model, str(version))

    def drop(self, model: str, version: str) -> None:
        """One copy less; the series go with the last one."""
        self._users[model, version] -= 1
        if self._users[model, version] > 0:
            return
        del self._users[model, version]
        for metric in (self.hits, self.misses, self.evictions, self.bytes, self.entries):
            metric.remove_by_labels({"model": model, "version": version})


class CopyCacheMetrics:
    """What the cache of one loaded copy counts; a reload has two of a version for a while."""

    def __init__(self, metrics: CacheMetrics, model: str, version: str) -> None:
        self._metrics, self._model, self._version = metrics, model, version
        self._hits = metrics.hits.labels(model, version)
        self._misses = metrics.misses.labels(model, version)
        self._evictions = metrics.evictions.labels(model, version)
        self._bytes = metrics.bytes.labels(model, version)
        self._entries = metrics.entries.labels(model, version)
        self._closed = False

    def hit(self, texts: int) -> None:
        """So many texts were answered without a run of their own."""
        self._hits.inc(texts)

    def miss(self, texts: int) -> None:
        """So many were not there."""
        self._misses.inc(texts)

    def resize(self, *, held_bytes: int, entries: int, evicted: int) -> None:
        """What is kept became more, or less, by so much."""
        self._bytes.inc(held_bytes)
        self._entries.inc(entries)
        if evicted:
            self._evictions.inc(evicted)

    def close(self) -> None:
        """Nothing is kept any more: the caller has told so by `resize`."""
        if not self._closed:
            self._closed = True
            self._metrics.drop(self._model, self._version)
