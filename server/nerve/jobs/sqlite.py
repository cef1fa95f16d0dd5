"""Requests that are answered later in a file of this server's own: SQLite, in threads of its own.

The only home of sqlite3. One thread writes, a group of steps in each transaction; another one reads.
What is in a transaction is told by `sqlite_steps`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from nerve.errors import StoreFailed, StoreUnavailable
from nerve.jobs import sqlite_messages as messages
from nerve.jobs import sqlite_steps as steps
from nerve.jobs.grouping import Grouping
from nerve.jobs.limits import Limits, Outflow
from nerve.jobs.records import (
    ClaimedJob,
    Counts,
    Delivery,
    Done,
    JobError,
    JobRecord,
    NewJob,
    Recovered,
)
from nerve.jobs.sqlite_file import inspect, migrate, outcome_of, set_up
from nerve.jobs.sqlite_held import HeldFile

log = logging.getLogger(__name__)
T = TypeVar("T")
Step = Callable[[sqlite3.Connection], Any]

_BUSY_S: Final = 10.0
"""Longest wait for another program that reads the file, as a backup does."""


class SqliteJobStore:
    """A `JobStore` in a file that no other server has open. Leases mean nothing in it."""

    shared = False

    def __init__(
        self, path: Path, limits: Limits, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is opened yet. `clock` dates what is given back or tried again."""
        self._file, self._limits, self._clock = HeldFile(path), limits, clock
        self._outflow = Outflow()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._write_thread: ThreadPoolExecutor | None = None
        self._read_thread: ThreadPoolExecutor | None = None
        self._grouped: Grouping[Step] = Grouping(self._hand_over)

    async def open(self) -> None:
        """As in `JobStore`: its folder must be there, the file is made (mode 0600) if it is not."""
        self._write_thread = ThreadPoolExecutor(1, "async-store-write")
        self._read_thread = ThreadPoolExecutor(1, "async-store-read")
        try:
            await asyncio.get_running_loop().run_in_executor(self._write_thread, self._open)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """As in `JobStore`; what is being written is written first."""
        await self._grouped.idle()
        writing, self._write_thread = self._write_thread, None
        reading, self._read_thread = self._read_thread, None
        loop = asyncio.get_running_loop()
        for thread, close in ((reading, self._close_reader), (writing, self._close_writer)):
            if thread is not None:
                await loop.run_in_executor(thread, close)
                thread.shutdown()

    async def add(self, job: NewJob) -> None:
        """As in `JobStore`."""
        await self._write(lambda db: steps.add(db, job, self._limits, self._outflow, self._clock()))

    async def claim(
        self,
        owner: str,
        now: float,
        lease_s: float,  # noqa: ARG002  it is this server's until it ends
        limit: int,
        *,
        alone: bool = False,
        without: Collection[str] = (),
    ) -> list[ClaimedJob]:
        """As in `JobStore`."""
        return await self._write(
            lambda db: steps.claim(
                db, owner, now, limit, self._outflow, alone=alone, without=without
            )
        )

    async def finish(self, owner: str, request_id: str, done: Done, now: float) -> bool:
        """As in `JobStore`."""
        return await self._write(lambda db: steps.finish(db, owner, request_id, done, now))

    async def retry(
        self, owner: str, request_id: str, error: JobError, not_before: float, *, counted: bool
    ) -> bool:
        """As in `JobStore`."""
        now = self._clock()
        return await self._write(
            lambda db: steps.retry(
                db, owner, request_id, error, not_before, counted=counted, now=now
            )
        )

    async def renew(self, owner: str, now: float, lease_s: float) -> None:
        """Nothing is to be done: it is this server's until it ends."""

    async def release(self, owner: str) -> None:
        """As in `JobStore`."""
        now = self._clock()
        await self._write(lambda db: steps.release(db, owner, now))

    async def recover(
        self, owners: frozenset[str], now: float, max_interruptions: int
    ) -> Recovered:
        """As in `JobStore`; every other owner is gone."""
        return await self._write(lambda db: steps.recover(db, owners, now, max_interruptions))

    async def expire(self, now: float) -> int:
        """As in `JobStore`, in many transactions if there are many."""
        expired = 0
        while True:
            some = await self._write(lambda db: steps.expire(db, now))
            expired += some
            if some < steps.EXPIRED_AT_ONCE:
                return expired

    async def cancel(self, request_id: str, now: float) -> JobRecord | None:
        """As in `JobStore`."""
        return await self._write(lambda db: steps.cancel(db, request_id, now))

    async def record(self, request_id: str) -> JobRecord | None:
        """As in `JobStore`."""
        return await self._read(lambda db: steps.record(db, request_id))

    async def result(self, request_id: str) -> bytes | None:
        """As in `JobStore`."""
        return await self._read(lambda db: steps.result(db, request_id))

    async def counts(self, model: str | None = None) -> Counts:
        """As in `JobStore`."""
        return await self._read(lambda db: steps.counts(db, model))

    async def claim_deliveries(
        self,
        owner: str,
        now: float,
        lease_s: float,  # noqa: ARG002  it is this server's until it ends
        limit: int,
    ) -> list[Delivery]:
        """As in `JobStore`."""
        return await self._write(lambda db: messages.claim_deliveries(db, owner, now, limit))

    async def delivered(self, owner: str, request_id: str, now: float) -> bool:
        """As in `JobStore`."""
        return await self._write(lambda db: messages.delivered(db, owner, request_id, now))

    async def undelivered(
        self,
        owner: str,
        request_id: str,
        error: JobError,
        now: float,
        again_at: float | None,
        *,
        counted: bool = True,
    ) -> bool:
        """As in `JobStore`."""
        return await self._write(
            lambda db: messages.undelivered(
                db, owner, request_id, error, now, again_at, counted=counted
            )
        )

    async def next_at(self, now: float) -> float | None:
        """As in `JobStore`."""
        return await self._read(lambda db: steps.next_at(db, now))

    async def sweep(self, before: float, limit: int) -> int:
        """As in `JobStore`."""
        return await self._write(lambda db: steps.sweep(db, before, limit))

    async def _write(self, step: Callable[[sqlite3.Connection], T]) -> T:
        if self._write_thread is None:
            raise StoreFailed("it is not open")
        outcome: T = await self._grouped(step)
        return outcome

    async def _hand_over(self, group: list[Step]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, self._do, group)

    def _do(self, group: list[Step]) -> list[Any]:
        """The outcomes of steps. If one spoils the transaction, each gets one of its own."""
        try:
            return self._together(group)
        except Exception as error:  # noqa: BLE001  boundary: each caller gets its own
            if len(group) == 1:
                return [error if isinstance(error, StoreFailed) else StoreFailed(str(error))]
            return [outcome for step in group for outcome in self._do([step])]

    def _together(self, group: list[Step]) -> list[Any]:
        self._file.check()
        if self._writer is None:
            self._writer = self._connect()
        db = self._writer
        try:
            db.execute("BEGIN IMMEDIATE")
            outcomes = [outcome_of(step, db) for step in group]
            db.execute("COMMIT")
            self._file.check()  # it may have gone meanwhile
        except BaseException:
            self._undo(db)
            raise
        return outcomes

    def _undo(self, db: sqlite3.Connection) -> None:
        """Also where the disk fails: then the file is opened anew for the next step."""
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("the store of async requests is opened anew")
            self._writer = None
            db.close()

    async def _read(self, step: Callable[[sqlite3.Connection], T]) -> T:
        if self._read_thread is None:
            raise StoreFailed("it is not open")
        return await asyncio.get_running_loop().run_in_executor(self._read_thread, self._look, step)

    def _look(self, step: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._file.check()
            if self._reader is None:
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
            return step(self._reader)
        except StoreFailed:
            raise
        except Exception as error:  # boundary: as in `_do`
            raise StoreFailed(str(error)) from error

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self, *, refused: bool = False) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._file.release(refused=refused)

    def _open(self) -> None:
        try:
            self._file.take()
            self._inspect()
            self._writer = self._connect()
            migrate(self._writer, self._file.shown)
        except BaseException as error:
            self._close_writer(refused=True)
            if not isinstance(error, sqlite3.Error):
                raise
            raise StoreUnavailable(self._file.shown, f"SQLite says: {error}") from error

    def _inspect(self) -> None:
        """What is not ours must stay as it is: it is only read."""
        with closing(sqlite3.connect(self._file.uri("ro"), timeout=_BUSY_S, uri=True)) as db:
            inspect(db, self._file.shown)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._file.uri("rw"),  # it is there, and must not be made when it has gone
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,  # closed by another thread only when its own has ended
            uri=True,
        )
        try:
            set_up(db, self._file.shown)
        except BaseException:
            db.close()
            raise
        return db
