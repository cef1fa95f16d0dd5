"""nv_*: what Triton's dashboards and autoscalers look for, from what is counted anyway.

Names, labels and units are Triton's: microseconds, summed up, each request charged with its runs
whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nerve.metrics.bare import bare_counter
from nerve.metrics.versions import CANCELLED, OK
from nerve.types import EngineStatistics

_BACKEND: Final = frozenset(
    {"internal", "tokenization_failed", "inference_failed", "non_finite_scores",
     "transform_failed", "transform_result", "transform_limit", "transform_down", "store_failed"}
)  # fmt: skip
_REJECTED: Final = frozenset({"queue_full", "wait_too_long", "server_busy", "deadline_exceeded"})
REASONS: Final = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


class Requests(Protocol):
    """`nerve.service.statistics.RequestTotals`, as far as it is wanted here."""

    succeeded: int
    texts: int
    succeeded_s: float
    queue_s: float
    input_s: float
    running_s: float
    output_s: float
    cache_hits: int
    cache_hits_s: float
    cache_misses: int
    cache_misses_s: float


class Totals(Protocol):
    """`nerve.service.statistics.VersionTotals`, likewise."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def version(self) -> int:
        """Its number."""

    @property
    def requests(self) -> Requests:
        """Those that it answered."""

    @property
    def engine(self) -> EngineStatistics:
        """What was run for them."""


def reason_of(outcome: str) -> str:
    """Triton's word for why a request failed, from ours. Pure."""
    if outcome == CANCELLED:
        return "CANCELED"
    if outcome in _REJECTED:
        return "REJECTED"
    return "BACKEND" if outcome in _BACKEND else "OTHER"


_COUNTERS: Final[dict[str, tuple[str, Callable[[Totals], float]]]] = {
    "nv_inference_request_success": ("Requests answered", lambda of: of.requests.succeeded),
    "nv_inference_count": (
        "Texts or rows inferred, answers from a cache not counted", lambda of: of.requests.texts),
    "nv_inference_exec_count": ("Runs", lambda of: of.engine.batches),
    "nv_inference_request_duration_us": (
        "Time of requests in the server", lambda of: 1e6 * of.requests.succeeded_s),
    "nv_inference_queue_duration_us": (
        "Time of requests in the queue", lambda of: 1e6 * of.requests.queue_s),
    "nv_inference_compute_input_duration_us": (
        "Time of tokenizing and padding", lambda of: 1e6 * of.requests.input_s),
    "nv_inference_compute_infer_duration_us": (
        "Time of runs", lambda of: 1e6 * of.requests.running_s),
    "nv_inference_compute_output_duration_us": (
        "Time of decoding", lambda of: 1e6 * of.requests.output_s),
    "nv_cache_num_hits_per_model": (
        "Requests answered from the cache", lambda of: of.requests.cache_hits),
    "nv_cache_num_misses_per_model": (
        "Requests of which something had to be run", lambda of: of.requests.cache_misses),
    "nv_cache_hit_duration_per_model": (
        "Time of looking answers up that were there", lambda of: 1e6 * of.requests.cache_hits_s),
    "nv_cache_miss_duration_per_model": (
        "Time of looking up and keeping what was run", lambda of: 1e6 * of.requests.cache_misses_s),
}  # fmt: skip


class TritonMetrics(Collector):
    """The aliases. `tell` the totals on the event loop, which they belong to, before each look."""

    def __init__(self, registry: CollectorRegistry, requests: Counter, load_seconds: Gauge) -> None:
        """`requests` by model, version and outcome; `load_seconds` by model and version."""
        self._requests, self._load_seconds = requests, load_seconds
        self._totals: Sequence[Totals] = ()
        registry.register(self)

    def tell(self, totals: Sequence[Totals]) -> None:
        """Of the versions that answer, copied: nobody changes them any more."""
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        """From any thread."""
        totals = self._totals
        for name, (text, read) in _COUNTERS.items():
            yield bare_counter(name, text, [(_labels(each), read(each)) for each in totals])
        yield self._failures(totals)
        pending = GaugeMetricFamily(
            "nv_inference_pending_request_count",
            "Rows that wait for a run",
            labels=["model", "version"],
        )
        for each in totals:
            pending.add_metric([each.model, str(each.version)], each.engine.queued_rows)
        yield pending
        load = GaugeMetricFamily(
            "nv_model_load_duration_secs", "Time of the last load", labels=["model", "version"]
        )
        for sample in (
            sample for family in self._load_seconds.collect() for sample in family.samples
        ):
            load.add_metric([sample.labels["model"], sample.labels["version"]], sample.value)
        yield load

    def _failures(self, totals: Sequence[Totals]) -> Metric:
        counts: dict[tuple[str, str, str], float] = defaultdict(float)
        for each in totals:  # from 0 on
            counts |= {(each.model, str(each.version), reason): 0.0 for reason in REASONS}
        for family in self._requests.collect():
            for sample in family.samples:
                of = sample.labels
                if sample.name.endswith("_total") and of["outcome"] != OK:
                    key = of["model"], of["version"], reason_of(of["outcome"])
                    counts[key] += sample.value
        return bare_counter(
            "nv_inference_request_failure",
            "Requests that failed after a version was chosen for them",
            [
                ({"model": model, "version": version, "reason": reason}, value)
                for (model, version, reason), value in counts.items()
            ],
        )


def _labels(totals: Totals) -> dict[str, str]:
    return {"model": totals.model, "version": str(totals.version)}
