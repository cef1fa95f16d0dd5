"""The server as a whole: what it is, whether it is ready, and the versions that it serves."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nerve import __version__
from nerve.types import ServedModel

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


class _Line(NamedTuple):
    served: ServedModel
    precision: str
    loaded_at: float


class ServingMetrics(Collector):
    """Facts of the server and of the versions that answer. `tell` it when they change."""

    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "nerve_build_info",
            "1; the labels tell which versions of what run here",
            ["version", "python", "onnxruntime"],
            registry=registry,
        )
        build.labels(__version__, platform.python_version(), _runtime()).set(1)
        self._ready = Gauge(
            "nerve_ready", "1 while /readyz says that traffic is welcome", registry=registry
        )
        connections = Gauge(
            "nerve_connections", "Connections that are open", ["protocol"], registry=registry
        )
        self._connections = connections.labels("http")
        self._lines: tuple[_Line, ...] = ()
        registry.register(self)

    def tell_ready(self, *, ready: bool) -> None:
        """Whether traffic is welcome."""
        self._ready.set(ready)

    def tell_connections(self, http: int) -> None:
        """How many of HTTP there are; gRPC does not tell its own."""
        self._connections.set(http)

    def tell(self, serving: Sequence[tuple[ServedModel, str]]) -> None:
        """These copies answer from now on, each with its precision."""
        before = {line.served: line for line in self._lines}
        now = time.time()
        self._lines = tuple(
            before.get(served) or _Line(served, precision, now) for served, precision in serving
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """From any thread."""
        info = GaugeMetricFamily(
            "nerve_model_info",
            "1 for each model version that answers; the labels tell what it is",
            labels=["model", "version", "precision", "device", "max_tokens"],
        )
        loaded = GaugeMetricFamily(
            "nerve_model_load_timestamp_seconds",
            "When the copy that answers was loaded, in seconds since 1970",
            labels=["model", "version"],
        )
        for line in self._lines:
            facts = line.served.info
            name, version = facts.name, str(facts.version)
            info.add_metric([name, version, line.precision, facts.device, str(facts.max_tokens)], 1)
            loaded.add_metric([name, version], line.loaded_at)
        return info, loaded


def _runtime() -> str:
    """Version of the runtime that is installed, from its package: nothing is imported."""
    for name in _RUNTIMES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"
