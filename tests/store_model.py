"""What a store of async requests does, in plain Python: what the real ones are compared with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from nerve.jobs.kept import EXPIRED, interrupted
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


@dataclass
class Entry:
    """One request."""

    job: NewJob
    order: int
    status: Status = Status.QUEUED
    status_at: float = 0.0
    attempts: int = 0
    interruptions: int = 0
    not_before: float = 0.0
    errors: tuple[JobError, ...] = ()
    version: str = ""
    result: bytes | None = None
    owner: str | None = None
    finished_at: float = 0.0
    webhook_status: WebhookStatus = WebhookStatus.PENDING
    webhook_errors: tuple[JobError, ...] = ()
    send_at: float | None = None
    settled_at: float | None = None
    deliveries: int = 0

    @property
    def shown_version(self) -> str:
        return self.version or self.job.version or ""

    def record(self) -> JobRecord:
        return JobRecord(
            self.job.request_id, self.job.key, self.job.model, self.shown_version, self.status,
            self.webhook_status, self.job.created_at, self.status_at,
            (*self.errors, *self.webhook_errors),
        )  # fmt: skip

    def waits_for_first(self) -> bool:
        return self.status is Status.QUEUED and self.attempts == 0

    def end(self, done: Done, now: float) -> None:
        self.status, self.version, self.result, self.errors = done
        self.status_at = self.finished_at = now
        self.owner = None
        if self.job.webhook:
            self.send_at = now
        else:
            self.settled_at = now

    def queue(self, now: float, *, attempts: int) -> None:
        self.status, self.status_at, self.owner = Status.QUEUED, now, None
        self.attempts += attempts
        self.not_before = 0.0

    @property
    def held_bytes(self) -> int:
        working = self.status in {Status.QUEUED, Status.IN_PROGRESS}
        return len(self.job.body if working else self.result or b"")


@dataclass
class Model:
    """All requests by their ids; times are arguments."""

    entries: dict[str, Entry] = field(default_factory=dict)
    order: int = 0

    def add(self, job: NewJob) -> None:
        self.order += 1
        to_send = WebhookStatus.PENDING if job.webhook else WebhookStatus.NO_WEBHOOK_PROVIDED
        self.entries[job.request_id] = Entry(
            job, self.order, status_at=job.created_at, webhook_status=to_send
        )

    def claim(
        self, owner: str, now: float, limit: int, *, alone: bool, without: Collection[str]
    ) -> list[ClaimedJob]:
        ready = [
            each
            for each in self.entries.values()
            if each.status is Status.QUEUED
            and each.not_before <= now
            and (each.interruptions > 1) == alone
            and each.job.model not in without
            and (each.attempts > 0 or each.job.expires_at > now)
        ]
        ready.sort(key=lambda each: (each.job.priority, each.job.created_at, each.order))
        for each in ready[:limit]:
            each.status, each.status_at, each.owner = Status.IN_PROGRESS, now, owner
            each.attempts += 1
        return [ClaimedJob(each.job, each.attempts, each.interruptions) for each in ready[:limit]]

    def _working(self, owner: str, request_id: str) -> Entry | None:
        entry = self.entries.get(request_id)
        mine = entry is not None and entry.owner == owner and entry.status is Status.IN_PROGRESS
        return entry if mine else None

    def _sending(self, owner: str, request_id: str) -> Entry | None:
        entry = self.entries.get(request_id)
        mine = entry is not None and entry.owner == owner and entry.send_at is not None
        return entry if mine else None

    def finish(self, owner: str, request_id: str, done: Done, now: float) -> bool:
        if entry := self._working(owner, request_id):
            entry.end(done, now)
        return entry is not None

    def retry(
        self, owner: str, request_id: str, error: JobError, not_before: float, now: float, *,
        counted: bool,
    ) -> bool:  # fmt: skip
        if entry := self._working(owner, request_id):
            entry.queue(now, attempts=0 if counted else -1)
            entry.errors, entry.not_before = (error,), not_before
        return entry is not None

    def release(self, owner: str, now: float) -> None:
        for each in self.entries.values():
            if each.owner == owner:
                if each.status is Status.IN_PROGRESS:
                    each.queue(now, attempts=-1)
                each.owner = None

    def recover(self, owners: frozenset[str], now: float, max_interruptions: int) -> Recovered:
        found = failed = 0
        for each in self.entries.values():
            if each.owner is None or each.owner in owners:
                continue
            each.owner = None
            if each.status is Status.IN_PROGRESS:
                found += 1
                each.queue(now, attempts=-1)
                each.interruptions += 1
                if each.interruptions > max_interruptions:
                    why = (interrupted(each.interruptions),)
                    each.end(Done(Status.FAILED, "", None, why), now)
                    failed += 1
        return Recovered(found - failed, failed)

    def expire(self, now: float) -> int:
        old = [
            each
            for each in self.entries.values()
            if each.waits_for_first() and each.job.expires_at <= now
        ]
        for each in old:
            each.end(Done(Status.EXPIRED, "", None, (*each.errors, EXPIRED)), now)
        return len(old)

    def cancel(self, request_id: str, now: float) -> JobRecord | None:
        entry = self.entries.get(request_id)
        if entry is None:
            return None
        before = entry.record()
        if entry.status is Status.QUEUED:
            entry.end(Done(Status.CANCELED, "", None, entry.errors), now)
            entry.send_at, entry.settled_at = None, now
            if entry.job.webhook:
                entry.webhook_status = WebhookStatus.CANCELED
        return before

    def counts(self, model: str) -> Counts:
        entries = [each for each in self.entries.values() if each.job.model == model]
        states = [each.status for each in entries]
        return Counts(
            states.count(Status.QUEUED),
            states.count(Status.IN_PROGRESS),
            len(states),
            sum(each.held_bytes for each in entries),
        )

    def claim_deliveries(self, owner: str, now: float, limit: int) -> list[Delivery]:
        due = [
            (each.send_at, each.order, each)
            for each in self.entries.values()
            if each.send_at is not None and each.send_at <= now and each.owner is None
        ]
        taken = [each for _, _, each in sorted(due, key=lambda item: item[:2])[:limit]]
        for each in taken:
            each.owner = owner
        return [
            Delivery(
                each.job.request_id, each.job.model, each.shown_version, each.job.webhook or "",
                each.status, each.finished_at, each.result, each.errors, each.deliveries,
            )
            for each in taken
        ]  # fmt: skip

    def delivered(self, owner: str, request_id: str, now: float) -> bool:
        if entry := self._sending(owner, request_id):
            entry.webhook_status, entry.webhook_errors = WebhookStatus.SUCCEEDED, ()
            entry.send_at, entry.settled_at, entry.owner = None, now, None
            entry.deliveries += 1
        return entry is not None

    def undelivered(
        self,
        owner: str,
        request_id: str,
        error: JobError,
        now: float,
        again_at: float | None,
        *,
        counted: bool,
    ) -> bool:
        entry = self._sending(owner, request_id)
        if entry is None:
            return False
        entry.webhook_errors, entry.send_at, entry.owner = (error,), again_at, None
        entry.deliveries += counted
        if again_at is None:
            entry.webhook_status, entry.settled_at = WebhookStatus.FAILED, now
            if entry.status is Status.SUCCEEDED:
                entry.status, entry.status_at = Status.WEBHOOK_FAILED, now
        return True

    def next_at(self, now: float) -> float | None:
        times = [
            at
            for each in self.entries.values()
            for at in (
                each.not_before if each.status is Status.QUEUED else None,
                each.job.expires_at if each.waits_for_first() else None,
                each.send_at if each.owner is None else None,
            )
            if at is not None and at > now
        ]
        return min(times, default=None)

    def sweep(self, before: float, limit: int) -> int:
        old = sorted(
            (each.settled_at, request_id)
            for request_id, each in self.entries.items()
            if each.settled_at is not None and each.settled_at < before
        )
        for _, request_id in old[:limit]:
            del self.entries[request_id]
        return len(old[:limit])
