"""Families of metrics as JSON, for pages that show them: as on Prometheus' page, or some of them only.

Names and types are those of that page (`nerve_requests_total`, counter). JSON has no number for NaN and
infinity; they are the strings that Prometheus writes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from nerve.errors import InvalidField, shown

SUFFIXES: Final = ("", "_total", "_bucket", "_sum", "_count", "_info")
"""What names of samples end with behind their family's name."""
ENDINGS: Final = {"counter": "_total", "info": "_info"}
"""What the names of some types of families end with on Prometheus' page, where the client library's
objects do not."""


class Families:
    """Those of a registry, by name. From any thread, one at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._known: dict[str, Metric] = {}
        """Each, empty."""

    def collect(self, names: Sequence[str]) -> list[dict[str, object]]:
        """A family each, by name: `name`, `type`, `help`, and `samples` of `name`, `labels`, `value`,
        none where nothing was counted yet.

        Args:
            names: of those that are wanted; only they are collected. Empty for all.
        Raises:
            InvalidField: there is none of that name, with the nearest that there is.
        """
        if not names:
            return [_plain(each) for _, each in sorted(self._all().items())]
        wanted = sorted(set(names))
        if not self._known.keys() >= set(wanted):  # perhaps nobody has looked yet
            self._known = {name: _empty(each) for name, each in self._all().items()}
        for name in wanted:
            if name not in self._known:
                raise InvalidField("name", self._fault(name))
        samples = {_stem(name) + suffix for name in wanted for suffix in SUFFIXES}
        # The client library leaves out families that are empty.
        found = {
            _name(each): each for each in self._registry.restricted_registry(samples).collect()
        }
        return [_plain(found.get(name, self._known[name])) for name in wanted]

    def _all(self) -> dict[str, Metric]:
        return {_name(each): each for each in self._registry.collect()}

    def _fault(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._known, 1, 0.6)
        fault = f"{shown(name)} is no metric of this server"
        return f"{fault}; did you mean {near[0]!r}?" if near else f"{fault}; see GET /metrics"


def _name(metric: Metric) -> str:
    """As Prometheus' page has it. Pure."""
    return metric.name + ENDINGS.get(metric.type, "")


def _empty(metric: Metric) -> Metric:
    return Metric(metric.name, metric.documentation, metric.type)


def _stem(name: str) -> str:
    """What the names of a family's samples begin with. Pure."""
    for ending in ENDINGS.values():
        name = name.removesuffix(ending)
    return name


def _plain(metric: Metric) -> dict[str, object]:
    """What `Families.collect` gives. Pure."""
    bare = metric.type == "unknown" and metric.name.startswith(("nv_", "te_"))  # see `bare`
    return {
        "name": _name(metric),
        "type": "counter" if bare else metric.type,
        "help": metric.documentation,
        "samples": [
            {"name": sample.name, "labels": sample.labels, "value": _number(sample.value)}
            for sample in metric.samples
        ],
    }


def _number(value: float) -> float | str:
    """What JSON can hold. Pure."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
