"""Stores of async requests for tests, and requests to put into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nerve.jobs.limits import Limits
from nerve.jobs.postgres_store import PostgresJobStore
from nerve.jobs.records import Done, JobError, JobStore, NewJob, Status
from nerve.jobs.sqlite import SqliteJobStore

WIDE: Final = Limits(max_queued=1000, max_stored_bytes=2**20, retention_s=60.0)
HOOK: Final = "https://hook.example/in"
BROKEN: Final = JobError("MODEL_PREDICT_ERROR", "it broke")
REFUSED: Final = JobError("INTERNAL_SERVER_ERROR", "the webhook answered 500")
ENDED: Final = Done(Status.SUCCEEDED, "2", b'[{"a":1}]', ())
FAILED: Final = Done(Status.FAILED, "", None, (BROKEN,))
LEASE_S: Final = 1000.0
"""A lease that does not end while a test runs; one of 0 s has ended at once."""


@dataclass
class Clock:
    """Seconds since 1970, as a test says."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """Where a store is; each call of `store` gives another server's view of it."""

    path: Path
    url: str | None
    clock: Clock = field(default_factory=Clock)

    def store(self, limits: Limits = WIDE) -> JobStore:
        if self.url is None:
            return SqliteJobStore(self.path, limits, clock=self.clock)
        return PostgresJobStore(self.url, limits, clock=self.clock)


def new(request_id: str, **changes: Any) -> NewJob:
    """A request that came at 100 and expires at 200, without a webhook."""
    values: dict[str, Any] = {
        "request_id": request_id, "key": "team", "model": "ner", "version": None,
        "body": b'{"inputs":["a"]}', "webhook": None, "priority": 0, "created_at": 100.0,
        "expires_at": 200.0, "max_attempts": 3, "initial_delay_s": 1.0, "max_delay_s": 5.0,
    }  # fmt: skip
    return NewJob(**{**values, **changes})


async def claimed(store: JobStore, owner: str = "a", now: float = 110.0, **more: Any) -> list[str]:
    """The ids of all that can be claimed."""
    jobs = await store.claim(
        owner, now, more.pop("lease_s", LEASE_S), more.pop("limit", 99), **more
    )
    return [each.job.request_id for each in jobs]


async def sent(store: JobStore, owner: str = "a", now: float = 120.0, limit: int = 99) -> list[str]:
    """The ids of all messages that can be claimed."""
    messages = await store.claim_deliveries(owner, now, LEASE_S, limit)
    return [each.request_id for each in messages]
