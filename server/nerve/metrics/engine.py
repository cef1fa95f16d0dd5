"""What the engines count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from nerve.metrics.buckets import ROWS, SECONDS, TOKENS
from nerve.metrics.copies import Copies
from nerve.metrics.tally import Bins
from nerve.metrics.transforms import TransformMetrics

Look = Callable[[float], tuple[int, float]]
"""How many rows wait, and since how many seconds the first of them; gets the time (monotonic)."""

_LABELS = ("model", "version")


class EngineMetrics:
    """What engines count, by model and version."""

    def __init__(self, registry: CollectorRegistry, copies: Copies | None = None) -> None:
        """`copies` is shared with whatever else counts by version."""
        self.rows = Histogram(
            "nerve_batch_rows", "Rows in one run", _LABELS, buckets=ROWS, registry=registry
        )
        self.seconds = Histogram(
            "nerve_run_seconds", "Duration of one run", _LABELS, buckets=SECONDS, registry=registry
        )
        self.tokens = Counter(
            "nerve_tokens", "Tokens run, padding not counted", _LABELS, registry=registry
        )
        self.padded = Counter(
            "nerve_padded_tokens", "Tokens run, padding counted", _LABELS, registry=registry
        )
        self.copies = Copies() if copies is None else copies
        self.copies.follow(versions=(self.rows, self.seconds, self.tokens, self.padded))
        self.queues = Queues(registry)
        self.lengths = Lengths(registry, self.copies)
        self.transforms = TransformMetrics(registry)
        self.on_run: list[Callable[[Sequence[int]], None]] = []
        """Told of each run: the tokens of its rows."""

    def of(self, model: str, version: int) -> RunMetrics:
        """Those of one copy of a version; `close` them with it."""
        return RunMetrics(self, model, str(version))


class RunMetrics:
    """What one loaded copy counts. There are no series of it before it is `watch`ed or has run."""

    def __init__(self, metrics: EngineMetrics, model: str, version: str) -> None:
        self._metrics, self._labels = metrics, (model, version)
        self._counts = False

    def watch(self, look: Look) -> None:
        """Tell of a queue from now on; `look` is called from any thread."""
        self._take()
        self._metrics.queues.add(self, self._labels, look)

    def observe(self, lengths: Sequence[int], padded_tokens: int, seconds: float) -> None:
        """Count one run of rows with so many tokens each."""
        if not self._counts:
            self._take()
        self._rows.observe(len(lengths))
        self._seconds.observe(seconds)
        self._tokens.inc(sum(lengths))
        self._padded.inc(padded_tokens)
        self._lengths.observe(lengths)
        for told in self._metrics.on_run:
            told(lengths)

    def close(self) -> None:
        """Nothing more will be counted."""
        if self._counts:
            self._counts = False
            self._metrics.queues.remove(self)
            self._metrics.copies.drop(*self._labels)

    def _take(self) -> None:
        if self._counts:
            return
        self._counts, metrics = True, self._metrics
        metrics.copies.take(*self._labels)
        # Looking a series up takes longer than counting in it; they stay as long as this copy.
        self._rows = metrics.rows.labels(*self._labels)
        self._seconds = metrics.seconds.labels(*self._labels)
        self._tokens = metrics.tokens.labels(*self._labels)
        self._padded = metrics.padded.labels(*self._labels)
        self._lengths = metrics.lengths.of(*self._labels)


class Lengths(Collector):
    """Tokens of each row, by model and version."""

    def __init__(self, registry: CollectorRegistry, copies: Copies) -> None:
        self._bins: dict[tuple[str, str], Bins] = {}
        copies.on_gone(lambda model, version: self._bins.pop((model, version), None))
        registry.register(self)

    def of(self, model: str, version: str) -> Bins:
        """Those of a version."""
        return self._bins.setdefault((model, version), Bins(TOKENS))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """From any thread."""
        family = HistogramMetricFamily(
            "nerve_sequence_tokens",
            "Tokens of one row that was run, a text or a window of it, padding not counted",
            labels=_LABELS,
        )
        for labels, bins in list(self._bins.items()):
            buckets, total = bins.read()
            family.add_metric(labels, buckets, total)
        return (family,)


class Queues(Collector):
    """What waits, looked up when asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._looks: dict[RunMetrics, tuple[tuple[str, str], Look]] = {}
        registry.register(self)

    def add(self, owner: RunMetrics, labels: tuple[str, str], look: Look) -> None:
        """One queue more."""
        self._looks[owner] = labels, look

    def remove(self, owner: RunMetrics) -> None:
        """Its queue is gone."""
        self._looks.pop(owner, None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """From any thread. Two copies of a version count together."""
        rows = GaugeMetricFamily("nerve_queue_rows", "Rows that wait for a run", labels=_LABELS)
        ages = GaugeMetricFamily(
            "nerve_queue_age_seconds",
            "How long the row waits that has waited longest, 0 if none does",
            labels=_LABELS,
        )
        now, found = time.monotonic(), dict[tuple[str, str], tuple[int, float]]()
        for labels, look in list(self._looks.values()):
            before, (waiting, age_s) = found.get(labels, (0, 0.0)), look(now)
            found[labels] = before[0] + waiting, max(before[1], age_s)
        for labels, (waiting, age_s) in found.items():
            rows.add_metric(labels, waiting)
            ages.add_metric(labels, age_s)
        return rows, ages
