"""What a store needs from time to time: leases renewed, what was left behind taken up, what is over
ended or forgotten, and what there is counted."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from nerve.errors import StoreFailed
from nerve.jobs.pace import Pace
from nerve.jobs.records import JobStore, Status
from nerve.metrics.jobs import JobMetrics

log = logging.getLogger(__name__)

MAX_INTERRUPTIONS: Final = 5
"""A request whose server went away more often than that while it was in progress has failed."""
SWEPT: Final = 500
"""Most that are forgotten at once, so that others get their turn at the store."""


class Housekeeping:
    """`take_up`, `start`, then `aclose`."""

    def __init__(
        self,
        store: JobStore,
        metrics: JobMetrics,
        *,
        owners: frozenset[str],
        retention_s: float,
        holding: Callable[[], bool],
        recovered: Callable[[], None],
        pace: Pace,
    ) -> None:
        """`owners` are the names that this server claims by; `holding` tells whether it has claimed
        anything; `recovered` is called when requests were queued again, or ended."""
        self._store, self._metrics, self._owners = store, metrics, owners
        self._retention_s, self._pace = retention_s, pace
        self._holding, self._recovered = holding, recovered
        self._tasks: list[asyncio.Task[None]] = []
        self._failed_at = -math.inf

    async def take_up(self) -> None:
        """Queue again what was left behind; before anything is claimed.

        Raises:
            StoreFailed: the store cannot be used.
        """
        await self._recover()
        await self._count()

    def start(self) -> None:
        """Go on with all that has to be done."""
        pace = self._pace
        chores: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("renew", pace.lease_s / 3, self._renew),
            ("expire", pace.poll_s, self._expire),
            ("count", pace.counts_s, self._count),
            ("sweep", pace.sweep_s, self._sweep),
        ]
        if self._store.shared:
            chores.append(("recover", pace.lease_s, self._recover_others))
        self._tasks = [
            asyncio.create_task(self._every(wait_s, chore), name=f"async requests: {name}")
            for name, wait_s, chore in chores
        ]

    async def aclose(self) -> None:
        """Leave the store alone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _every(self, wait_s: float, chore: Callable[[], Awaitable[None]]) -> None:
        failed = False
        while True:
            await asyncio.sleep(wait_s)
            try:
                await chore()
            except StoreFailed as error:  # whoever works says so, too
                log.log(logging.DEBUG if failed else logging.WARNING, "%s", error)
                failed, self._failed_at = True, time.monotonic()
            except Exception:  # boundary: the next time it may work
                log.exception("%s failed", asyncio.current_task())
            else:
                failed = False

    async def _renew(self) -> None:
        if self._holding():
            for owner in self._owners:
                await self._store.renew(owner, time.time(), self._pace.lease_s)

    async def _recover_others(self) -> None:
        """While the store was away, nobody could renew: those that live are to do that first."""
        if time.monotonic() >= self._failed_at + self._pace.lease_s:
            await self._recover()

    async def _recover(self) -> None:
        found = await self._store.recover(self._owners, time.time(), MAX_INTERRUPTIONS)
        if any(found):
            log.warning(
                "%s async requests were left behind by a server that is gone, %s of them too often: "
                "these have failed",
                sum(found),
                found.failed,
            )
            self._metrics.finished(Status.FAILED, found.failed)
            self._recovered()

    async def _expire(self) -> None:
        number = await self._store.expire(time.time())
        if number:
            self._metrics.finished(Status.EXPIRED, number)
            log.info("%s async requests waited for too long and have expired", number)
            self._recovered()  # their webhooks are to be told

    async def _count(self) -> None:
        counts = await self._store.counts()
        self._metrics.counts(
            queued=counts.queued, in_progress=counts.in_progress, kept_bytes=counts.held_bytes
        )

    async def _sweep(self) -> None:
        before = time.time() - self._retention_s
        swept = SWEPT
        while swept == SWEPT:
            swept = await self._store.sweep(before, SWEPT)
