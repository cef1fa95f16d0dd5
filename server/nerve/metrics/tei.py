"""te_*: what dashboards for Text Embeddings Inference look for; without labels of a model, as there.

Bounds are that server's own: 35 of durations, each half as large again as the one before, and
powers of two.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nerve.exchange import Exchange
from nerve.metrics.bare import bare_counter
from nerve.metrics.engine import Queues
from nerve.metrics.refusals import REASONS
from nerve.metrics.tally import Bins

_DURATIONS: Final = tuple(accumulate(repeat(1.5, 34), float.__mul__, initial=0.00001 * 1.5))
_LENGTHS: Final = tuple(2.0**power for power in range(20))
_SIZES: Final = tuple(2.0**power for power in range(13))
_TOKENS: Final = tuple(2.0**power for power in range(21))
_ROUTES: Final = "/predict_tokens"
"""End of the routes for inference that are that server's own."""
_ELSEWHERE: Final = ("not_served", "method_not_allowed")
_ERRORS: Final = {"too_many_inputs": "batch_size", "tokenization_failed": "tokenization"}
_OVERLOADED: Final = frozenset(
    {"queue_full", "wait_too_long", "server_busy", "rate_limited", "async_queue_full"}
)
_INFERENCE: Final = frozenset({
    "internal", "inference_failed", "non_finite_scores", "transform_failed", "transform_result",
    "transform_limit", "deadline_exceeded",
    # Ours alone; that server has no request fail for what is not ready.
    "transform_down", "model_not_ready", "model_unloaded", "server_stopping",
})  # fmt: skip
_HISTOGRAMS: Final[dict[str, tuple[str, Sequence[float]]]] = {
    "te_request_duration": ("Time of requests", _DURATIONS),
    "te_request_tokenization_duration": ("Time of tokenizing, mean of its texts", _DURATIONS),
    "te_request_queue_duration": ("Time in the queue, mean of its texts", _DURATIONS),
    "te_request_inference_duration": ("Time of runs, mean of its texts", _DURATIONS),
    "te_request_input_length": ("Tokens of each text", _LENGTHS),
    "te_batch_next_size": ("Rows in one run", _SIZES),
    "te_batch_next_tokens": ("Tokens in one run, padding not counted", _TOKENS),
}


class TeiMetrics(Collector):
    """The aliases: a `nerve.exchange.Observer`, and told of each run."""

    def __init__(self, registry: CollectorRegistry, queues: Queues) -> None:
        self._queues = queues
        self._bins = {name: Bins(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}
        self._counts: collections.Counter[str] = collections.Counter()
        self._successes: collections.Counter[str] = collections.Counter()
        self._failures: collections.Counter[str] = collections.Counter()
        registry.register(self)

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """See `nerve.exchange.Observer`."""

    def finished(self, exchange: Exchange) -> None:
        """Count it if it came as far as a model, was refused, or came to a route of that server's. One
        whose caller left is neither answered nor a failure, as there."""
        cost = exchange.cost
        if cost is None:
            if _counts(exchange):
                self._counts["single"] += 1
                if not exchange.left:
                    self._failures[_error(exchange.reason)] += 1
            return
        method = "single" if exchange.texts == 1 else "batch"
        self._counts[method] += 1
        self._successes[method] += 1
        self._observe("te_request_duration", exchange.seconds)
        self._observe("te_request_tokenization_duration", cost.tokenization_s)
        self._observe("te_request_queue_duration", cost.queue_s)
        self._observe("te_request_inference_duration", cost.inference_s)
        self._bins["te_request_input_length"].observe([text.tokens for text in cost.each])

    def ran(self, lengths: Sequence[int]) -> None:
        """A run of rows with so many tokens each."""
        self._observe("te_batch_next_size", len(lengths))
        self._observe("te_batch_next_tokens", sum(lengths))

    def _observe(self, name: str, value: float) -> None:
        self._bins[name].observe((value,))

    def collect(self) -> Iterable[Metric]:
        """From any thread."""
        for name, text, label, counts in (
            ("te_request_count", "Requests", "method", self._counts),
            ("te_request_success", "Requests answered", "method", self._successes),
            ("te_request_failure", "Requests not answered", "err", self._failures),
        ):
            samples = [({label: key}, count) for key, count in list(counts.items())]
            yield bare_counter(name, text, samples)
        for name, (text, _) in _HISTOGRAMS.items():
            buckets, total = self._bins[name].read()
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
        waiting = sum(
            sample.value
            for family in self._queues.collect()
            for sample in family.samples
            if sample.name == "nerve_queue_rows"
        )
        yield GaugeMetricFamily("te_queue_size", "Rows that wait for a run", value=waiting)


def _counts(exchange: Exchange) -> bool:
    """Whether a request that was not answered is one for inference. Pure."""
    if exchange.info is not None or exchange.reason in REASONS:
        return True
    ours = exchange.reason in ("", *_ELSEWHERE)
    return not ours and exchange.method == "POST" and exchange.route.endswith(_ROUTES)


def _error(reason: str) -> str:
    """That server's word for why a request failed, from ours. Pure."""
    if reason in _INFERENCE:
        return "inference"
    if reason in _ERRORS:
        return _ERRORS[reason]
    return "overloaded" if reason in _OVERLOADED else "validation"
