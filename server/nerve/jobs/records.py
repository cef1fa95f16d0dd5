"""A request that is answered later: what was asked, what becomes of it, and where that is kept.

Times are seconds since 1970, as they outlive the process. Names of statuses are Baseten's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Status(StrEnum):
    """Where a request is. It is queued again while it waits to be tried once more."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELED = "CANCELED"
    WEBHOOK_FAILED = "WEBHOOK_FAILED"
    """It was answered, and its webhook did not take the answer."""


class WebhookStatus(StrEnum):
    """Where the message to the webhook is."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    """The request was canceled: nothing is sent."""
    NO_WEBHOOK_PROVIDED = "NO_WEBHOOK_PROVIDED"


class JobError(NamedTuple):
    """Why an attempt, or a delivery, failed: a code of Baseten's, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client asked for, checked.

    `key` is the name of its API key, `model` a name in the repository, `version` as the client wrote
    it (None: whichever serves), `body` the JSON of the sync route's body, `priority` 0 (first) to 2.
    Attempts after the first wait `initial_delay_s`, twice that, and so on up to `max_delay_s`.
    """

    request_id: str
    key: str | None
    model: str
    version: str | None
    body: bytes
    webhook: str | None
    priority: int
    created_at: float
    expires_at: float
    """When it fails as EXPIRED, if no attempt has begun by then."""
    max_attempts: int
    initial_delay_s: float
    max_delay_s: float


class ClaimedJob(NamedTuple):
    """A request that is now ours to run, until the lease ends.

    `attempts` counts this one; `interruptions` counts attempts whose server went away without a word,
    which are no attempts.
    """

    job: NewJob
    attempts: int
    interruptions: int


class Delivery(NamedTuple):
    """A message that is now ours to send. `result` is JSON, None where the request failed;
    `deliveries` counts those that were tried before."""

    request_id: str
    model: str
    version: str
    webhook: str
    status: Status
    finished_at: float
    result: bytes | None
    errors: tuple[JobError, ...]
    deliveries: int


class JobRecord(NamedTuple):
    """What can be told of a request. `version` is the one that answered or was asked for, else ""."""

    request_id: str
    key: str | None
    model: str
    version: str
    status: Status
    webhook_status: WebhookStatus
    created_at: float
    status_at: float
    errors: tuple[JobError, ...]


class Done(NamedTuple):
    """How a request ended: SUCCEEDED with a result, or FAILED with errors. `version` answered, or ""."""

    status: Status
    version: str
    result: bytes | None
    errors: tuple[JobError, ...]


class Counts(NamedTuple):
    """How many requests wait and are worked on, and the bytes of all that is kept."""

    queued: int
    in_progress: int
    kept: int
    """Requests of every status."""
    held_bytes: int
    """Bodies and results."""


class Recovered(NamedTuple):
    """Requests that servers left behind which are gone: how many are queued again, and how many were
    interrupted too often and have failed."""

    queued: int
    failed: int


class JobStore(Protocol):
    """Keeps requests. What a method did is on the disk when it returns. Safe for many tasks at once.

    Several servers may share one (`shared`); each is an `owner`, a name that no other process has or
    had. What an owner claims is its own for `lease_s`, longer if it says so by `renew`.
    """

    shared: bool
    """Whether other servers may work on it: `recover` then only takes what has no lease any more."""

    async def open(self) -> None:
        """Make what is missing.

        Raises:
            SetupError: it cannot be used: no such place, no right to write, of a newer server, or
                another server has it and it cannot be shared.
        """

    async def aclose(self) -> None:
        """Give it up; what was claimed stays claimed."""

    async def add(self, job: NewJob) -> None:
        """Accept a request.

        Raises:
            AsyncQueueFull: as many wait as may, or so many bytes are kept.
            StoreFailed: it could not be written.
        """

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
        """Take up to `limit` queued requests whose time has come: by priority, then by age, none that
        has expired. `alone`: only those that were interrupted more than once, else only the others.
        Those to the models `without` are left; however many they are, that costs nothing."""

    async def finish(self, owner: str, request_id: str, done: Done, now: float) -> bool:
        """Note how it ended; its webhook is then pending. False (and nothing happens) if it is not
        this owner's any more."""

    async def retry(
        self, owner: str, request_id: str, error: JobError, not_before: float, *, counted: bool
    ) -> bool:
        """Queue it again, not to be claimed before that time. Not `counted`: that attempt was none.
        The error is kept as the last one. False as in `finish`."""

    async def renew(self, owner: str, now: float, lease_s: float) -> None:
        """Keep everything that this owner has claimed, requests and deliveries."""

    async def release(self, owner: str) -> None:
        """Give back at once what this owner has claimed (it stops): no attempt, no interruption."""

    async def recover(
        self, owners: frozenset[str], now: float, max_interruptions: int
    ) -> Recovered:
        """Queue again what was left behind by servers that are gone, as interrupted; what was
        interrupted more often than that fails (INTERNAL_SERVER_ERROR). Their messages are pending
        again. `owners` are all names of the server that asks: what it works on itself stays its own,
        even if it was too late to renew it."""

    async def expire(self, now: float) -> int:
        """End what waits for its first attempt and has expired (attempts that did not count, or were
        interrupted, are none); its webhook is then pending. Returns how many."""

    async def cancel(self, request_id: str, now: float) -> JobRecord | None:
        """Cancel it if it is queued. Returns it as it was before, None if there is none."""

    async def record(self, request_id: str) -> JobRecord | None:
        """What is known of it."""

    async def result(self, request_id: str) -> bytes | None:
        """The JSON of its answer, if it has one."""

    async def counts(self, model: str | None = None) -> Counts:
        """Of everything, or of a model."""

    async def claim_deliveries(
        self, owner: str, now: float, lease_s: float, limit: int
    ) -> list[Delivery]:
        """Take messages whose time has come, oldest first."""

    async def delivered(self, owner: str, request_id: str, now: float) -> bool:
        """The webhook took it. False as in `finish`."""

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
        """It did not; again then, or never: what SUCCEEDED is WEBHOOK_FAILED then. Not `counted`: it
        was not tried. The error is kept as the last one. False as in `finish`."""

    async def next_at(self, now: float) -> float | None:
        """The first time after `now` at which something is to be done that nobody does yet: a retry, an
        expiry, a delivery."""

    async def sweep(self, before: float, limit: int) -> int:
        """Forget requests that ended, with all that is to be delivered, before that time; at most
        `limit` of them. Returns how many."""
