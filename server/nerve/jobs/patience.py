"""How a store that fails for a while is waited for, and what it may have done all the same."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nerve.errors import StoreFailed
from nerve.jobs.pace import Pace, doubled
from nerve.jobs.records import JobStore

T = TypeVar("T")

log = logging.getLogger(__name__)


class Patience:
    """Waits longer each time, and says so once in a while."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    def ok(self) -> None:
        """The store works."""
        if self._failures:
            log.info("the store of async requests works again")
        self._failures = 0

    async def failed(self, what: str, error: Exception) -> None:
        """It does not: wait."""
        self._failures += 1
        level = logging.ERROR if self._failures == 1 else logging.WARNING
        log.log(level, "%s have to wait: %s", what, error)
        await asyncio.sleep(doubled(self._pace.store_s, self._failures, self._pace.store_max_s))

    async def until_written(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """What `write` gives, which is tried until the store takes it."""
        failures = 0
        while True:
            try:
                return await write()
            except StoreFailed as error:
                failures += 1
                log.warning("what became of an async request is not written yet: %s", error)
                await asyncio.sleep(doubled(self._pace.store_s, failures, self._pace.store_max_s))

    async def until_next(self, store: JobStore, since: float, longest_s: float) -> float:
        """Seconds until something has to be done by the store's account, at most `longest_s`. `since`
        is when it was asked for what is to be done: what has come up after that counts."""
        try:
            next_at = await store.next_at(since)
        except StoreFailed:
            return min(longest_s, self._pace.store_max_s)
        return longest_s if next_at is None else min(max(next_at - time.time(), 0.0), longest_s)


class Claims:
    """Claims of an owner. One that failed may have been written: what nobody knows of is given back,
    or it would be ours for as long as we live."""

    def __init__(self, store: JobStore, owner: str) -> None:
        self._store, self._owner = store, owner
        self._unsure = False

    async def take(self, claim: Callable[[], Awaitable[list[T]]], *, holding: bool) -> list[T]:
        """What `claim` gives; nothing while we are unsure and still `holding` something of ours.

        Raises:
            StoreFailed: as `claim` does.
        """
        if self._unsure:
            if holding:
                return []
            await self._store.release(self._owner)
        self._unsure = True
        claimed = await claim()
        self._unsure = False
        return claimed
