"""What the service counts at the version that answers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from nerve.metrics.buckets import SECONDS, SHORT_SECONDS
from nerve.metrics.copies import Copies
from nerve.types import CallStatistics

OK = "ok"
CANCELLED = "cancelled"
"""Outcome of a request whose caller has gone."""

_LABELS = ("model", "version")


class VersionMetrics:
    """Requests, their stages and their texts, by model and version. Count while a lease is held:
    the series go when the last copy of the version has, and nothing may bring them back."""

    def __init__(self, registry: CollectorRegistry, copies: Copies) -> None:
        self.requests = Counter(
            "nerve_model_requests",
            "Requests that a version was chosen for: ok, cancelled, or the reason of the error",
            [*_LABELS, "outcome"],
            registry=registry,
        )
        self.queue = Histogram(
            "nerve_queue_seconds",
            "Time that a request waited for its runs",
            _LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.tokenize = Histogram(
            "nerve_tokenize_seconds",
            "Time that a request's texts took to tokenize",
            _LABELS,
            buckets=SHORT_SECONDS,
            registry=registry,
        )
        self.decode = Histogram(
            "nerve_decode_seconds",
            "Time from a request's scores to its answer, transform included",
            _LABELS,
            buckets=SHORT_SECONDS,
            registry=registry,
        )
        self.texts = Counter("nerve_texts", "Texts tagged", ["model"], registry=registry)
        self.truncated = Counter(
            "nerve_truncated_texts",
            "Texts that were longer than the model and were cut",
            ["model"],
            registry=registry,
        )
        self._versions: dict[tuple[str, str], OneVersion] = {}
        copies.on_gone(lambda model, version: self._versions.pop((model, version), None))
        copies.follow(
            versions=(self.requests, self.queue, self.tokenize, self.decode),
            models=(self.texts, self.truncated),
        )

    def of(self, model: str, version: int) -> OneVersion:
        """Those of a version that is leased."""
        key = model, str(version)
        found = self._versions.get(key)
        if found is None:
            found = self._versions[key] = OneVersion(self, *key)
        return found


class OneVersion:
    """What one version counts; its series are looked up once."""

    def __init__(self, metrics: VersionMetrics, model: str, version: str) -> None:
        self._requests = metrics.requests
        self._labels = model, version
        self._ok = metrics.requests.labels(model, version, OK)
        self._queue = metrics.queue.labels(model, version)
        self._tokenize = metrics.tokenize.labels(model, version)
        self._decode = metrics.decode.labels(model, version)
        self._texts = metrics.texts.labels(model)
        self._truncated = metrics.truncated.labels(model)

    def answered(self, texts: int, cost: CallStatistics) -> None:
        """A request was answered, for so many texts. One from the cache alone has no stages."""
        self._ok.inc()
        self._texts.inc(texts)
        if cost.truncated_texts:
            self._truncated.inc(cost.truncated_texts)
        if cost.cached is not None and cost.cached.hits >= texts:
            return
        self._queue.observe(cost.runs.waiting_s)
        if cost.each:  # else rows of token ids were brought, and logits wanted
            self._tokenize.observe(cost.tokenization_s * texts)
            self._decode.observe(cost.decoding_s * texts)

    def failed(self, outcome: str) -> None:
        """A request was not: `cancelled`, or an error's reason."""
        self._requests.labels(*self._labels, outcome).inc()
