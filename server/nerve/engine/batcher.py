"""The queue in which rows wait for an instance. It waits and carries; `nerve.engine.plan` decides."""

from __future__ import annotations

import asyncio
import bisect
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from nerve.engine.cost import CostEstimator, Run
from nerve.engine.plan import BatchLimits, Floats, plan, prices, wait_s
from nerve.errors import ModelUnloaded, NerveError, QueueFull, WaitTooLong
from nerve.exchange import recorded
from nerve.types import CostModel, IntArray, Row, RowResult

log = logging.getLogger(__name__)

MIN_AHEAD: Final = 8
"""Rows that must wait at least for a batch to be taken ahead of a free worker."""
_DELAY_STEP: Final = 0.05
_MOST_DELAY: Final = 100.0


@dataclass(slots=True, eq=False)
class Waiter:
    """A row on its way, its future settled exactly once.

    `arrived`, `turn` and `deadline` (infinite without one) in monotonic seconds; `price_s` is what
    it takes in good company (`nerve.engine.plan.prices`); `trace` see `nerve.types.TracedRun`.
    """

    row: Row
    length: int
    arrived: float
    turn: float
    deadline: float
    price_s: float
    future: asyncio.Future[RowResult]
    trace: object = None

    def settle(self, result: RowResult) -> None:
        """Hand over the result, unless the caller has gone."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: NerveError) -> None:
        """Hand over an error, unless the caller has gone or has its result."""
        if not self.future.done():
            self.future.set_exception(error)


class Batch(NamedTuple):
    """Rows for one run; `alone` if every other instance is idle and nothing else waits."""

    waiters: list[Waiter]
    alone: bool


class Batcher:
    """A bounded queue of rows. Callers submit, workers take batches; one event loop.

    Rows take turns by the time at which they came, but a row of a large request as if it had come
    when the rows before it were done, and one of a lower priority as if it had come later. So
    nobody waits for all of a large request, and priorities hold nobody up for ever.

    There can be more takers than `workers` that run: then, as long as enough waits to choose from,
    the next batch is there before a run ends, and no time is lost between two.
    """

    def __init__(self, model: str, limits: BatchLimits, *, workers: int, ahead: int = 0) -> None:
        """`workers` batches run at the same time; `ahead` more tasks call `next_batch`."""
        self.limits = limits
        self._model, self._workers, self._takers = model, workers, workers + ahead
        self._waiting: list[Waiter] = []  # by turn
        self._arrival = asyncio.Event()
        self._closed = False
        self._work_s = 0.0  # prices of what waits
        self._tokens = 0  # of what waits
        self._idle = 0
        self._urgency = True
        self._delay = 1.0  # what a run is waited for, over what the model says that it takes
        self._estimator = CostEstimator()
        self._prices = np.zeros(0)  # by length
        self._price_list: list[float] = []  # the same
        self._priced_by = self._estimator.cost
        self._buckets: IntArray | None = None

    @property
    def cost(self) -> CostModel:
        """What runs take, as far as is known."""
        return self._estimator.cost

    @property
    def queued(self) -> int:
        """Rows that wait and whose caller is still there."""
        if any(waiter.future.done() for waiter in self._waiting):
            self._keep([waiter for waiter in self._waiting if not waiter.future.done()])
        return len(self._waiting)

    def look(self, now: float) -> tuple[int, float]:
        """As `queued`, and for how many seconds the first of them has waited; from any thread."""
        waiting = [waiter for waiter in list(self._waiting) if not waiter.future.done()]
        oldest = min((waiter.arrived for waiter in waiting), default=now)
        return len(waiting), max(0.0, now - oldest)

    def round_up(self, buckets: Sequence[int]) -> None:
        """Plan with lengths rounded up to the next of `buckets`, as runs are padded; () for none."""
        self._buckets = np.array(sorted(buckets)) if buckets else None

    def begin(self, runs: Sequence[Run]) -> None:
        """Learn from runs on idle instances what runs take."""
        self._estimator.begin(runs)

    def observe(self, run: Run, *, took_s: float) -> None:
        """Learn from a run that served, and was waited for so long."""
        expected = float(self.cost.seconds(run.rows, run.length))
        self._delay += _DELAY_STEP * (min(took_s / expected, _MOST_DELAY) - self._delay)
        self._estimator.observe(run)

    def observe_lone(self) -> None:
        """A run that had the machine to itself: nothing to learn, but nothing delays runs now."""
        self._delay += _DELAY_STEP * (1.0 - self._delay)

    def check_room(self) -> None:
        """Raise what `submit` would raise for a full or closed queue."""
        if self._closed:
            raise ModelUnloaded(self._model)
        limit, most = self.limits.max_queue_size, self.limits.max_queue_tokens
        if len(self._waiting) < limit and self._tokens < most:  # the cheap look first
            return
        if self.queued >= limit:
            raise QueueFull(self._model, limit, self._wait_before(math.inf))
        if self._tokens >= most:
            raise QueueFull(self._model, most, self._wait_before(math.inf), "tokens")

    def submit(
        self, rows: Sequence[Row], *, deadline: float | None = None, priority: int | None = None
    ) -> list[asyncio.Future[RowResult]]:
        """Queue all rows of a request, or none.

        A request is taken whole when the queue has room at all, so that one of many rows is not
        refused for ever; the queue may exceed its limit by one request.

        Args:
            rows: of the request.
            deadline: in monotonic seconds.
            priority: 1 (first) to 10; None is that of `limits`.
        Raises:
            QueueFull: as many rows or tokens as allowed wait already.
            WaitTooLong: what goes before takes too long for the deadline.
            ModelUnloaded: the batcher is closed.
        """
        self.check_room()
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        exchange = recorded()
        trace = None if exchange is None else exchange.trace
        until = math.inf if deadline is None else deadline
        later = (priority or self.limits.default_priority) * self.limits.priority_step_s
        own = 0.0  # work of this request before a row
        waiters = []
        self._priced(max(len(row.ids) for row in rows))
        for row in rows:
            length = len(row.ids)
            price = self._price_list[length]
            turn = now + later + own / self._workers
            waiter = Waiter(row, length, now, turn, until, price, loop.create_future(), trace)
            waiters.append(waiter)
            own += price
        if deadline is not None:
            self._check_wait(waiters[-1].turn, own / self._workers, deadline - now)
        in_order = not self._waiting or self._waiting[-1].turn <= waiters[0].turn
        self._waiting += waiters
        self._work_s += own
        self._tokens += sum(waiter.length for waiter in waiters)
        if not in_order:
            self._waiting.sort(key=_turn)  # stable
        if self._ready():
            self._arrival.set()
        return [waiter.future for waiter in waiters]

    async def next_batch(self) -> Batch:
        """Wait for rows and take the next batch; rows whose caller has gone are dropped here."""
        self._idle += 1
        try:
            while True:
                if not self.queued or not self._ready():
                    self._arrival.clear()
                    await self._arrival.wait()
                    continue
                now = time.monotonic()
                try:
                    positions = self._plan(now)
                except Exception:  # boundary: rows are served whatever is wrong with the plan
                    log.exception("no batch could be planned", extra={"model": self._model})
                    positions = [0]
                oldest = min(self._waiting[position].arrived for position in positions)
                delay = wait_s(len(positions), len(self._waiting), oldest, self.limits, now)
                if delay == 0.0:
                    return self._take(positions)
                self._arrival.clear()
                try:
                    async with asyncio.timeout(delay):
                        await self._arrival.wait()
                except TimeoutError:
                    continue
        finally:
            self._idle -= 1

    @property
    def _busy(self) -> int:
        """Batches that were taken and run, or are about to."""
        return self._takers - self._idle

    def _ready(self) -> bool:
        """Whether a batch can be taken now: for a free worker, or ahead of one from many rows."""
        enough = max(MIN_AHEAD, self.limits.max_batch_size)
        return self._busy < self._workers or len(self._waiting) >= enough

    def _plan(self, now: float) -> list[int]:
        if len(self._waiting) == 1:  # what a lone caller finds
            return [0]
        seen = self._waiting[: self.limits.look_ahead]
        lengths = np.array([waiter.length for waiter in seen])
        if self._buckets is not None:
            at = np.searchsorted(self._buckets, lengths)
            known = at < len(self._buckets)
            lengths[known] = self._buckets[at[known]]
        # Idle instances share what waits, unless company is worth waiting for.
        free = max(1, self._workers - self._busy)
        sharing = 1 if self.limits.max_queue_delay_s else free
        return plan(
            lengths,
            self._priced(int(lengths.max()))[lengths],
            (np.array([waiter.deadline for waiter in seen]) - now) / self._delay,
            self.limits,
            self.cost,
            most=-(-len(self._waiting) // sharing),
            urgency=self._urgency,
        )

    def _take(self, positions: Sequence[int]) -> Batch:
        self._urgency = 0 in positions  # not twice in a row before the one whose turn it is
        batch = [self._waiting[position] for position in positions]
        taken = set(positions)
        self._keep([each for place, each in enumerate(self._waiting) if place not in taken])
        return Batch(batch, alone=self._busy == 0 and not self._waiting)

    def _keep(self, waiting: list[Waiter]) -> None:
        self._waiting = waiting
        self._work_s = sum(waiter.price_s for waiter in waiting)
        self._tokens = sum(waiter.length for waiter in waiting)

    def _priced(self, longest: int) -> Floats:
        """Prices by length, up to `longest` at least."""
        if self._priced_by is not self.cost or longest >= len(self._prices):
            self._priced_by = self.cost
            size = max(longest + 1, len(self._prices), 128)
            self._prices = prices(np.arange(size), self.limits, self.cost)
            self._price_list = self._prices.tolist()
        return self._prices

    def _wait_before(self, turn: float) -> float:
        """Seconds of work that waits and goes before a row with that turn."""
        end = bisect.bisect_right(self._waiting, turn, key=_turn)
        work = sum(waiter.price_s for waiter in self._waiting[:end])
        return work / self._workers * self._delay

    def _check_wait(self, turn: float, own_s: float, left_s: float) -> None:
        """Refuse what cannot be done in time if all that goes before it by turn is done first.

        An empty queue refuses nothing: a wrong estimate must get its chance to be corrected.
        """
        whole = self._work_s / self._workers + own_s
        if whole * self._delay <= left_s or not self.queued:
            return
        wait = self._wait_before(turn)
        if wait > 0 and wait + own_s * self._delay > left_s:
            raise WaitTooLong(self._model, wait, left_s)

    def close(self) -> None:
        """Take nothing more, and fail what waits."""
        self._closed = True
        for waiter in self._waiting:
            waiter.fail(ModelUnloaded(self._model))
        self._keep([])


def _turn(waiter: Waiter) -> float:
    return waiter.turn
