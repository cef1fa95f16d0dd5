"""A histogram's counts, for what happens so often that a library's lock each time is felt."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np
from prometheus_client.utils import floatToGoString

MANY: Final = 32
"""From so many values on numpy is quicker."""


class Bins:
    """Values by bucket. One thread writes; any may read, and sees at worst the last value in part."""

    __slots__ = ("_bounds", "_counts", "_names", "_sorted", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._sorted = tuple(bounds), np.array(bounds, dtype=np.float64)
        self._names = [_name(bound) for bound in (*self._bounds, float("inf"))]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count some values."""
        if len(values) < MANY:
            for value in values:
                self._counts[bisect_left(self._bounds, value)] += 1
                self._sum += value
            return
        array = np.array(values, dtype=np.float64)
        places = np.searchsorted(self._sorted, array)
        for place, count in enumerate(np.bincount(places).tolist()):
            self._counts[place] += count
        self._sum += float(array.sum())

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, as `HistogramMetricFamily` wants them, and the sum."""
        counts, total = list(self._counts), self._sum
        return list(zip(self._names, np.cumsum(counts).tolist(), strict=True)), total


def _name(bound: float) -> str:
    """As the client library's own histograms write it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]
