"""All that the daemon counts, wired together on one registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from nerve.exchange import Observer
from nerve.metrics.cache import CacheMetrics
from nerve.metrics.copies import Copies
from nerve.metrics.engine import EngineMetrics
from nerve.metrics.exposition import Exposition
from nerve.metrics.gpu import register_gpus
from nerve.metrics.jobs import JobMetrics
from nerve.metrics.process import LoopLag, register_process
from nerve.metrics.repository import RepositoryMetrics
from nerve.metrics.requests import RequestMetrics
from nerve.metrics.serving import ServingMetrics
from nerve.metrics.tei import TeiMetrics
from nerve.metrics.triton import Totals, TritonMetrics


class Metrics:
    """What is counted, for those who count it; `exposition` shows it. `start`, then `aclose`."""

    def __init__(self, registry: CollectorRegistry, *, compat: Sequence[str] = ()) -> None:
        """`compat` names the servers whose metrics are shown besides: triton, tei."""
        copies = Copies()
        self.requests = RequestMetrics(registry, copies)
        self.engines = EngineMetrics(registry, copies)
        self.caches = CacheMetrics(registry)
        self.jobs = JobMetrics(registry)
        self.repository = RepositoryMetrics(registry)
        self.serving = ServingMetrics(registry)
        self.exposition = Exposition(registry)
        self.observers: list[Observer] = [self.requests]
        """Of every exchange."""
        self._lag = LoopLag(registry)
        register_process(registry)
        register_gpus(registry, triton="triton" in compat)
        self._triton: TritonMetrics | None = None
        if "triton" in compat:
            self._triton = TritonMetrics(
                registry, self.requests.versions.requests, self.repository.load_seconds
            )
        if "tei" in compat:
            tei = TeiMetrics(registry, self.engines.queues)
            self.engines.on_run.append(tei.ran)
            self.observers.append(tei)

    def ask(
        self,
        *,
        ready: Callable[[], bool],
        connections: Callable[[], int],
        totals: Callable[[], Sequence[Totals]],
    ) -> None:
        """Ask before each page, on the event loop: whether traffic is welcome, how many connections
        of HTTP are open, and the totals of the versions that answer."""

        def look() -> None:
            self.serving.tell_ready(ready=ready())
            self.serving.tell_connections(connections())
            if self._triton is not None:
                self._triton.tell(totals())

        self.exposition.before(look)

    def start(self) -> None:
        """Begin to look at the event loop."""
        self._lag.start()

    async def aclose(self) -> None:
        """Look no more."""
        await self._lag.aclose()
