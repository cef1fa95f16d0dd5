"""Requests that are answered later in a PostgreSQL database, which several servers may share.

Each method is a transaction, most are one statement; PostgreSQL itself writes those of many connections
together. Leases go by the database's clock, as those of servers differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict

from nerve.jobs import postgres_sql as sql
from nerve.jobs.kept import EXPIRED, as_delivery, as_record, errors_text, interrupted
from nerve.jobs.limits import Limits, Outflow
from nerve.jobs.postgres import Database
from nerve.jobs.records import (
    ClaimedJob,
    Counts,
    Delivery,
    Done,
    JobError,
    JobRecord,
    NewJob,
    Recovered,
    Status,
    WebhookStatus,
)


class PostgresJobStore:
    """A `JobStore` in PostgreSQL. The limit of what may wait can be exceeded by what other requests
    add at the same moment."""

    shared = True

    def __init__(self, url: str, limits: Limits, *, clock: Callable[[], float] = time.time) -> None:
        """Nothing is opened yet. `clock` dates what is given back or tried again."""
        self._db, self._limits, self._clock = Database(url), limits, clock
        self._outflow = Outflow()

    async def open(self) -> None:
        """As in `JobStore`: the database must be there, its tables are made if they are not."""
        await self._db.open()

    async def aclose(self) -> None:
        """As in `JobStore`."""
        await self._db.aclose()

    async def add(self, job: NewJob) -> None:
        """As in `JobStore`."""
        to_send = WebhookStatus.PENDING if job.webhook else WebhookStatus.NO_WEBHOOK_PROVIDED
        added = await self._db.change(
            sql.ADD,
            **asdict(job),
            webhook_status=to_send,
            held_bytes=len(job.body),
            max_queued=self._limits.max_queued,
            max_stored_bytes=self._limits.max_stored_bytes,
        )
        if not added:
            await self._refuse(job)

    async def _refuse(self, job: NewJob) -> None:
        """Tell which limit was in the way."""
        counts = await self.counts()
        first = (await self._db.rows(sql.FIRST_SETTLED))[0][0]
        wait_s = self._outflow.wait_s()
        self._limits.check_queued(counts.queued, lambda: wait_s)
        self._limits.check_bytes(
            counts.held_bytes,
            len(job.body),
            lambda: self._limits.forgotten_in_s(first, self._clock(), wait_s),
        )
        # there is room again: what was in the way has just gone
        self._limits.check_queued(self._limits.max_queued, lambda: 1.0)

    async def claim(
        self,
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
        *,
        alone: bool = False,
        without: Collection[str] = (),
    ) -> list[ClaimedJob]:
        """As in `JobStore`."""
        await self._db.change(sql.WAKE, now=now)
        rows = await self._db.claimed(
            sql.CLAIM,
            owner=owner,
            now=now,
            lease_s=lease_s,
            limit=limit,
            alone=alone,
            without=list(without),
        )
        claimed = [(ClaimedJob(NewJob(*row[:-3]), row[-3], row[-2]), row[-1]) for row in rows]
        claimed.sort(key=lambda each: (each[0].job.priority, each[0].job.created_at, each[1]))
        self._outflow.note(len(claimed))
        return [each for each, _ in claimed]

    async def finish(self, owner: str, request_id: str, done: Done, now: float) -> bool:
        """As in `JobStore`."""
        changed = await self._db.change(
            sql.FINISH,
            owner=owner,
            request_id=request_id,
            status=done.status,
            version=done.version,
            errors=errors_text(done.errors),
            result=done.result,
            held_bytes=len(done.result or b""),
            now=now,
        )
        return changed > 0

    async def retry(
        self, owner: str, request_id: str, error: JobError, not_before: float, *, counted: bool
    ) -> bool:
        """As in `JobStore`."""
        changed = await self._db.change(
            sql.RETRY,
            owner=owner,
            request_id=request_id,
            errors=errors_text([error]),
            not_before=not_before,
            uncounted=int(not counted),
            now=self._clock(),
        )
        return changed > 0

    async def renew(self, owner: str, now: float, lease_s: float) -> None:  # noqa: ARG002
        """As in `JobStore`, by the database's clock."""
        await self._db.change(sql.RENEW, owner=owner, lease_s=lease_s, doubtful=self._db.doubtful())

    async def release(self, owner: str) -> None:
        """As in `JobStore`."""
        await self._db.change(sql.RELEASE, owner=owner, now=self._clock())

    async def recover(
        self, owners: frozenset[str], now: float, max_interruptions: int
    ) -> Recovered:
        """As in `JobStore`."""
        ours, doubtful = list(owners), self._db.doubtful()
        await self._db.change(sql.RECOVER_MESSAGES, owners=ours, doubtful=doubtful)
        rows = await self._db.rows(
            sql.RECOVER,
            owners=ours,
            doubtful=doubtful,
            errors=errors_text([interrupted("{}")]),
            max_interruptions=max_interruptions,
            now=now,
        )
        failed = sum(poison for (poison,) in rows)
        return Recovered(len(rows) - failed, failed)

    async def expire(self, now: float) -> int:
        """As in `JobStore`, in many transactions if there are many."""
        expired = 0
        error = errors_text([EXPIRED])[1:-1]
        while True:
            some = await self._db.change(sql.EXPIRE, now=now, error=error)
            expired += some
            if some < sql.AT_ONCE:
                return expired

    async def cancel(self, request_id: str, now: float) -> JobRecord | None:
        """As in `JobStore`."""
        row = await self._db.first_then(
            sql.RECORD + " FOR UPDATE",
            lambda row: sql.CANCEL if as_record(row).status is Status.QUEUED else None,
            request_id=request_id,
            now=now,
        )
        return None if row is None else as_record(row)

    async def record(self, request_id: str) -> JobRecord | None:
        """As in `JobStore`."""
        rows = await self._db.rows(sql.RECORD, request_id=request_id)
        return as_record(rows[0]) if rows else None

    async def result(self, request_id: str) -> bytes | None:
        """As in `JobStore`."""
        rows = await self._db.rows(sql.RESULT, request_id=request_id)
        return rows[0][0] if rows else None

    async def counts(self, model: str | None = None) -> Counts:
        """As in `JobStore`."""
        return Counts(*(await self._db.rows(sql.COUNTS, model=model))[0])

    async def claim_deliveries(
        self, owner: str, now: float, lease_s: float, limit: int
    ) -> list[Delivery]:
        """As in `JobStore`."""
        rows = await self._db.claimed(
            sql.CLAIM_MESSAGES, owner=owner, now=now, lease_s=lease_s, limit=limit
        )
        return [as_delivery(row[:-2]) for row in sorted(rows, key=lambda row: row[-2:])]

    async def delivered(self, owner: str, request_id: str, now: float) -> bool:
        """As in `JobStore`."""
        return await self._db.change(sql.DELIVERED, owner=owner, request_id=request_id, now=now) > 0

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
        changed = await self._db.change(
            sql.UNDELIVERED,
            owner=owner,
            request_id=request_id,
            errors=errors_text([error]),
            again_at=again_at,
            counted=int(counted),
            last=again_at is None,
            now=now,
        )
        return changed > 0

    async def next_at(self, now: float) -> float | None:
        """As in `JobStore`."""
        at: float | None = (await self._db.rows(sql.NEXT_AT, now=now))[0][0]
        return at

    async def sweep(self, before: float, limit: int) -> int:
        """As in `JobStore`."""
        return await self._db.change(sql.SWEEP, before=before, limit=limit)
