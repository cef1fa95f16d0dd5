"""The page that Prometheus reads, and the same as JSON."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from nerve.metrics.bare import typed
from nerve.metrics.families import Families

GZIP_BYTES = 1024
"""Smaller pages are not worth it."""


class Page(NamedTuple):
    """What is answered."""

    body: bytes
    content_type: str
    gzipped: bool


class Exposition:
    """Makes the page, in the format that the client takes: Prometheus' text, or OpenMetrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry, self._families = registry, Families(registry)
        self._before: list[Callable[[], None]] = []
        self._one = asyncio.Lock()  # however many ask
        # The client library's: a second series for each, telling when it began, in every process.
        disable_created_metrics()  # type: ignore[no-untyped-call]

    def before(self, prepare: Callable[[], None]) -> None:
        """Call `prepare` on the event loop before each page: for what may only be read there."""
        self._before.append(prepare)

    async def page(self, accept: str, accept_encoding: str) -> Page:
        """The page, by two headers of the request ("" if absent). Made in a thread: with many models
        it takes long."""
        async with self._one:
            for prepare in self._before:
                prepare()
            return await asyncio.to_thread(self._make, accept, accepts_gzip(accept_encoding))

    async def families(self, names: Sequence[str]) -> list[dict[str, object]]:
        """Those of these names, or all: see `Families.collect`. Made in a thread, too.

        Raises:
            InvalidField: there is none of a name.
        """
        async with self._one:
            for prepare in self._before:
                prepare()
            return await asyncio.to_thread(self._families.collect, names)

    def _make(self, accept: str, wants_gzip: bool) -> Page:
        encode, content_type = choose_encoder(accept)
        body = typed(encode(self._registry))
        if wants_gzip and len(body) >= GZIP_BYTES:
            return Page(gzip.compress(body, compresslevel=1), content_type, gzipped=True)
        return Page(body, content_type, gzipped=False)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header allows it: named (or any), and not with a weight of 0. Pure."""
    weights: dict[str, str] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = parameter.replace(" ", "").removeprefix("q=")
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != "" or weight == ""
