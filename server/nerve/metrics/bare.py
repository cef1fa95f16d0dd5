"""Counters as other servers name them: without `_total`, which the client library always adds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric

_UNTYPED = re.compile(rb"(?m)^(# TYPE (?:nv|te)_\S+) untyped$")


def bare_counter(
    name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Metric:
    """A counter that is called `name` and nothing else.

    OpenMetrics has none such, so there its type is unknown; see `typed` for Prometheus' format.
    """
    metric = Metric(name, text, "unknown")
    for labels, value in samples:
        metric.add_sample(name, dict(labels), value)
    return metric


def typed(page: bytes) -> bytes:
    """Prometheus' text format with the type that those counters have. Pure."""
    return _UNTYPED.sub(rb"\1 counter", page)
