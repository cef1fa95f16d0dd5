"""How much a store may hold, and when one that is full is worth another try. Knows no database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nerve.config.server import ServerConfig
from nerve.errors import AsyncQueueFull

_WINDOW_S: Final = 60.0
"""What the pace is measured over; also the longest wait that it gives."""
_SHORTEST_WAIT_S: Final = 1.0


@dataclass(slots=True)
class Outflow:
    """How fast requests leave the queue. Not for many threads at once."""

    clock: Callable[[], float] = time.monotonic
    _taken: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, requests: int) -> None:
        """So many have just left it."""
        if requests:
            self._taken.append((self.clock(), requests))
            self._forget()

    def wait_s(self) -> float:
        """Seconds until the next one will have left, as it went in the last minute."""
        self._forget()
        taken = sum(requests for _, requests in self._taken)
        each_s = _WINDOW_S / taken if taken else _WINDOW_S
        return max(_SHORTEST_WAIT_S, each_s)

    def _forget(self) -> None:
        while self._taken and self._taken[0][0] < self.clock() - _WINDOW_S:
            self._taken.popleft()


@dataclass(frozen=True, slots=True)
class Limits:
    """Most requests that wait, most bytes of bodies and results, and how long an ended one is kept."""

    max_queued: int
    max_stored_bytes: int
    retention_s: float

    @classmethod
    def of(cls, config: ServerConfig) -> Limits:
        """What the server is set to."""
        return cls(config.async_max_queued, config.async_max_stored_bytes, config.async_retention_s)

    def check_queued(self, queued: int, wait_s: Callable[[], float]) -> None:
        """Whether one more may wait beside so many.

        Raises:
            AsyncQueueFull: it may not; a place is likely to be free after `wait_s`.
        """
        if queued >= self.max_queued:
            raise AsyncQueueFull("queued async requests", self.max_queued, wait_s())

    def check_bytes(self, held_bytes: int, more_bytes: int, wait_s: Callable[[], float]) -> None:
        """Whether a body of `more_bytes` may be kept beside what is held.

        Raises:
            AsyncQueueFull: it may not.
        """
        if held_bytes + more_bytes > self.max_stored_bytes:
            raise AsyncQueueFull(
                "bytes of async requests and results", self.max_stored_bytes, wait_s()
            )

    def forgotten_in_s(self, settled_at: float | None, now: float, otherwise_s: float) -> float:
        """Seconds until what ended at `settled_at`, first of all, is forgotten; where nothing has ended
        (None), something else has to end before."""
        if settled_at is None:
            return otherwise_s
        return max(_SHORTEST_WAIT_S, settled_at + self.retention_s - now)
