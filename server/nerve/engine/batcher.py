"""Which rows run next, and the queue they wait in. `plan` and `wait_s` decide, `Batcher` waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nerve.errors import ModelUnloaded, NerveError, QueueFull
from nerve.types import Row, RowResult


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of a batch and of the queue. `max_num_tokens` counts padding: rows times longest."""

    max_batch_size: int
    max_num_tokens: int
    max_queue_delay_s: float
    max_queue_size: int


def plan(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Positions of the rows of the next batch: the oldest, then in order whatever still fits.

    A row too long to join is left for later and shorter ones behind it may go before it; it
    becomes the oldest one in time, and the oldest row always goes. A row alone always fits.

    Args:
        lengths: tokens of each waiting row, oldest first; at least one.
        limits: of the model.
    Returns:
        Positions in ascending order, 0 among them.
    """
    chosen = [0]
    longest = lengths[0]
    for position in range(1, len(lengths)):
        if len(chosen) >= limits.max_batch_size:
            break
        padded = max(longest, lengths[position])
        if padded * (len(chosen) + 1) <= limits.max_num_tokens:
            chosen.append(position)
            longest = padded
    return chosen


def wait_s(batch: int, queued: int, oldest: float, limits: BatchLimits, now: float) -> float:
    """Seconds to wait for company before sending; 0 means send now.

    Args:
        batch: rows that `plan` would send.
        queued: rows that wait; when some of them do not fit, the batch is full.
        oldest: when the first of them arrived; like `now` in monotonic seconds.
    """
    full = batch >= limits.max_batch_size or batch < queued
    return 0.0 if full else max(0.0, oldest + limits.max_queue_delay_s - now)


@dataclass(slots=True, eq=False)
class Waiter:
    """A row on its way: `arrived` in monotonic seconds, its future settled exactly once."""

    row: Row
    arrived: float
    future: asyncio.Future[RowResult]

    def settle(self, result: RowResult) -> None:
        """Hand over the result, unless the caller has gone."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: NerveError) -> None:
        """Hand over an error, unless the caller has gone or has its result."""
        if not self.future.done():
            self.future.set_exception(error)


class Batcher:
    """A bounded queue of rows. Callers submit, workers take batches; one event loop."""

    def __init__(self, model: str, limits: BatchLimits) -> None:
        self.limits = limits
        self._model = model
        self._waiting: list[Waiter] = []
        self._arrival = asyncio.Event()
        self._closed = False

    @property
    def queued(self) -> int:
        """Rows that wait and whose caller is still there."""
        self._waiting = [waiter for waiter in self._waiting if not waiter.future.done()]
        return len(self._waiting)

    def check_room(self) -> None:
        """Raise what `submit` would raise for a full or closed queue."""
        if self._closed:
            raise ModelUnloaded(self._model)
        limit = self.limits.max_queue_size
        if len(self._waiting) >= limit and self.queued >= limit:  # the cheap look first
            raise QueueFull(self._model, limit)

    def submit(self, rows: Sequence[Row]) -> list[asyncio.Future[RowResult]]:
        """Queue all rows of a request, or none.

        A request is taken whole when the queue has room at all, so that one of many rows is not
        refused for ever; the queue may exceed its limit by one request.

        Raises:
            QueueFull: as many rows as allowed wait already.
            ModelUnloaded: the batcher is closed.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        waiters = [Waiter(row, now, loop.create_future()) for row in rows]
        self._waiting += waiters
        self._arrival.set()
        return [waiter.future for waiter in waiters]

    async def next_batch(self) -> list[Waiter]:
        """Wait for rows and take the next batch; rows whose caller has gone are dropped here."""
        while True:
            if not self.queued:
                self._arrival.clear()
                await self._arrival.wait()
                continue
            positions = plan([len(waiter.row.ids) for waiter in self._waiting], self.limits)
            oldest, queued = self._waiting[0].arrived, len(self._waiting)
            delay = wait_s(len(positions), queued, oldest, self.limits, time.monotonic())
            if delay == 0.0:
                return self._take(positions)
            self._arrival.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._arrival.wait()
            except TimeoutError:
                continue

    def _take(self, positions: Sequence[int]) -> list[Waiter]:
        batch = [self._waiting[position] for position in positions]
        taken = set(positions)
        self._waiting = [
            waiter for position, waiter in enumerate(self._waiting) if position not in taken
        ]
        return batch

    def close(self) -> None:
        """Take nothing more, and fail what waits."""
        self._closed = True
        for waiter in self._waiting:
            waiter.fail(ModelUnloaded(self._model))
        self._waiting.clear()
