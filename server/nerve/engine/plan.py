"""Which rows run next: pure decisions, without clock or queue.

`plan` counts in fair seconds. The price of a row is what it takes in the best batch of rows of its own
length; a batch is worth the prices of its rows, and the plan is the batch, around the row whose
turn it is, that is worth most per second that the cost model predicts for it. Short rows do not
ride along with long ones for their tokens' sake, and a batch that grows beyond what the hardware
likes is no better than two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from nerve.config.running import Scheduler
from nerve.types import BoolArray, CostModel, IntArray

Floats = npt.NDArray[np.float64]

LOOK_AHEAD: Final = 8
"""Rows that are looked at, in largest batches: more waste less, but odd lengths wait longer."""
_MIN_AHEAD, _MAX_AHEAD = 64, 2048
_EACH_SIZE: Final = 64
HOPELESS: Final = 0.5
"""A row with less time left than this share of what it takes alone is not run: nobody will see it."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of a batch and of the queue. `max_num_tokens` counts padding: rows times longest."""

    max_batch_size: int
    max_num_tokens: int
    max_queue_delay_s: float
    max_queue_size: int
    scheduler: Scheduler = Scheduler.COST
    priority_step_s: float = 1.0
    default_priority: int = 5
    max_queue_tokens: int = 262_144

    @property
    def look_ahead(self) -> int:
        """Rows that `plan` needs to see."""
        return max(_MIN_AHEAD, min(LOOK_AHEAD * self.max_batch_size, _MAX_AHEAD))


def plan(
    lengths: IntArray,
    price_s: Floats,
    slack_s: Floats,
    limits: BatchLimits,
    cost: CostModel,
    *,
    most: int,
    urgency: bool = True,
) -> list[int]:
    """Positions of the rows of the next batch.

    The first row always goes, with two exceptions: it is hopeless, or another one would miss its
    deadline if it had to wait for this batch (only with `urgency`; who allows that every other
    time only lets no row starve). A row alone always fits.

    Args:
        lengths: (rows,) tokens of each waiting row, in the order of their turns; at least one.
        price_s: (rows,) seconds, see `prices`.
        slack_s: (rows,) seconds until each row's deadline, infinite without one.
        limits: of the model.
        cost: of its runs.
        most: rows at most, beside those of `limits`: what is left is for idle instances.
        urgency: whether a row may go before its turn for the sake of its deadline.
    Returns:
        Positions in ascending order; of equal lengths the earlier ones, deadlines apart.
    """
    if limits.scheduler is Scheduler.FIFO:
        return _first_come(lengths, limits)
    queue = _Queue(lengths, price_s, limits, cost, most)
    longest_run_s = float(cost.seconds(limits.max_batch_size, lengths.max()))
    if slack_s.min() >= 2 * longest_run_s:  # nobody can come late by any decision
        return queue.best(0)[0]
    alone = cost.seconds(1, lengths)
    alive = slack_s >= HOPELESS * alone
    leader = int(np.argmax(alive)) if alive.any() else 0
    chosen, took = _in_time(queue, leader, slack_s, alone)
    if urgency:
        start_within = slack_s - alone
        missed = (start_within >= 0) & (start_within < took)
        missed[chosen] = False
        if missed.any():
            urgent = int(np.argmin(np.where(missed, start_within, np.inf)))
            instead, meanwhile = _in_time(queue, urgent, slack_s, alone)
            # One must not be made late for another that is as near to it.
            if leader in instead or not 0 <= start_within[leader] < meanwhile:
                return instead
    return chosen


def _first_come(lengths: IntArray, limits: BatchLimits) -> list[int]:
    """In order, whatever still fits beside the first row, padded to the longest."""
    chosen = [0]
    longest = int(lengths[0])
    for position in range(1, len(lengths)):
        if len(chosen) >= limits.max_batch_size:
            break
        padded = max(longest, int(lengths[position]))
        if padded * (len(chosen) + 1) <= limits.max_num_tokens:
            chosen.append(position)
            longest = padded
    return chosen


def prices(lengths: IntArray, limits: BatchLimits, cost: CostModel) -> Floats:
    """Seconds of each row in the best batch of its equals; the longer, the dearer.

    Args:
        lengths: (rows,) tokens.
    """
    largest = limits.max_batch_size
    sizes = np.unique(np.append(2 ** np.arange(math.floor(math.log2(largest)) + 1), largest))
    each = cost.seconds(sizes, lengths[:, None]) / sizes
    fits = (sizes == 1) | (sizes * lengths[:, None] <= limits.max_num_tokens)
    return np.asarray(np.where(fits, each, np.inf).min(axis=1))


@dataclass(frozen=True, slots=True)
class _Queue:
    """What `plan` was given, deadlines apart."""

    lengths: IntArray
    price_s: Floats
    limits: BatchLimits
    cost: CostModel
    most: int

    def best(
        self, leader: int, *, company: BoolArray | None = None, in_time: float = math.inf
    ) -> tuple[list[int], float]:
        """The batch with `leader` that is worth most per second, and its seconds.

        For a given longest row and number of rows, the longest that are allowed are worth most. So
        a batch is a padded length and a number of rows, and all of them are looked at.

        Args:
            leader: position of the row that goes in any case.
            company: (rows,) who else may go; by default everybody.
            in_time: seconds that the run may take.
        """
        if self.limits.max_batch_size == 1:
            return [leader], float(self.cost.seconds(1, self.lengths[leader]))
        others = np.argsort(-self.lengths, kind="stable")  # equal ones keep their order
        others = others[others != leader] if company is None else others[company[others]]
        lengths, own = self.lengths[others], int(self.lengths[leader])
        alone_s = float(self.cost.seconds(1, own))
        # Rows from the first of each length that is over the leader's, or the first that is not.
        longer = int(np.count_nonzero(lengths > own))
        starts = np.flatnonzero(np.diff(lengths[:longer], prepend=0))
        if longer < len(lengths):
            starts = np.append(starts, longer)
        sizes = _sizes(min(self.limits.max_batch_size, self.most, len(lengths) + 1))
        if not len(sizes) or not len(starts):
            return [leader], alone_s
        padded = np.maximum(lengths[starts], own)[:, None]
        ends = starts[:, None] + sizes - 1
        seconds = self.cost.seconds(sizes, padded)
        fits = ends <= len(lengths)
        fits &= sizes * padded <= self.limits.max_num_tokens
        fits &= seconds <= in_time
        total = np.append(0.0, np.cumsum(self.price_s[others]))
        worth = total[np.minimum(ends, len(lengths))] - total[starts][:, None]
        worth += self.price_s[leader]
        rate = np.where(fits, worth / seconds, 0.0)
        place = int(np.argmax(rate))
        if rate.flat[place] <= self.price_s[leader] / alone_s:
            return [leader], alone_s
        row, size = divmod(place, len(sizes))
        taken = others[starts[row] : ends[row, size]]
        return sorted([leader, *taken.tolist()]), float(seconds[row, size])


def _sizes(most: int) -> IntArray:
    """Numbers of rows to look at, from 2 on: each up to 64, and some beyond, with `most`."""
    if most <= _EACH_SIZE:
        return np.arange(2, most + 1)
    some = np.geomspace(_EACH_SIZE, most, 16).astype(np.int64)
    return np.unique(np.concatenate([np.arange(2, _EACH_SIZE), some, [most]]))


def _in_time(queue: _Queue, leader: int, slack_s: Floats, alone: Floats) -> tuple[list[int], float]:
    """The best batch with `leader` that makes no one late who need not be; and its seconds."""
    company = slack_s >= alone
    company[leader] = False
    in_time = float(slack_s[leader]) if slack_s[leader] >= alone[leader] else math.inf
    while True:
        chosen, took = queue.best(leader, company=company, in_time=in_time)
        late = slack_s < took
        late[leader] = False
        if not late[chosen].any():
            return chosen, took
        company &= ~late


def wait_s(batch: int, queued: int, oldest: float, limits: BatchLimits, now: float) -> float:
    """Seconds to wait for company before sending; 0 means send now.

    Args:
        batch: rows that `plan` would send.
        queued: rows that wait; when some of them do not fit, the batch is full.
        oldest: when the first of them arrived; like `now` in monotonic seconds.
    """
    full = batch >= limits.max_batch_size or batch < queued
    return 0.0 if full else max(0.0, oldest + limits.max_queue_delay_s - now)
