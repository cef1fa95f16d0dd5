"""What each method of the store does in SQLite, inside a transaction of its caller's.

Knows no threads and no files. A step that raises a NerveError has written nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from nerve.jobs.kept import EXPIRED, as_record, errors_of, errors_text, interrupted
from nerve.jobs.limits import Limits, Outflow
from nerve.jobs.records import (
    ClaimedJob,
    Counts,
    Done,
    JobError,
    JobRecord,
    NewJob,
    Recovered,
    Status,
    WebhookStatus,
)
from nerve.jobs.sqlite_file import Database

EXPIRED_AT_ONCE: Final = 1000
"""Most requests that one step ends: the writes behind it wait for it."""
_PROMOTED_AT_ONCE: Final = 1000
_VACUUMED_PAGES: Final = 1024
"""Most free pages (4 KiB each) that a sweep gives back to the file system."""
_JOB: Final = (
    "request_id, key, model, asked_version, body, webhook, priority, created_at, expires_at, "
    "max_attempts, initial_delay_s, max_delay_s"
)
READY: Final = """
SELECT priority, created_at, seq FROM jobs
WHERE model = ? AND alone = ? AND status = 'QUEUED' AND not_before IS NULL
    AND (attempts > 0 OR expires_at > ?)
ORDER BY priority, created_at, seq LIMIT ?
"""
"""The first requests to a model. An index of all models' would have to be read from its beginning, past
those to models that are left out, which may be many."""
_RECORD: Final = (
    "request_id, key, model, CASE version WHEN '' THEN coalesce(asked_version, '') ELSE version END, "
    "status, webhook_status, created_at, status_at, errors, webhook_error"
)


def add(db: Database, job: NewJob, limits: Limits, outflow: Outflow, now: float) -> None:
    """Write a new request, if there is room for it."""
    queued, held_bytes = db.execute(
        "SELECT coalesce(sum(queued), 0), coalesce(sum(held_bytes), 0) FROM totals"
    ).fetchone()
    limits.check_queued(queued, outflow.wait_s)
    limits.check_bytes(held_bytes, len(job.body), lambda: _room_in_s(db, limits, outflow, now))
    to_send = WebhookStatus.PENDING if job.webhook else WebhookStatus.NO_WEBHOOK_PROVIDED
    db.execute(
        "INSERT INTO jobs (request_id, key, model, asked_version, webhook, priority, created_at, "
        "expires_at, max_attempts, initial_delay_s, max_delay_s, status_at, webhook_status, "
        "held_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(job.request_id, job.key, job.model, job.version, job.webhook, job.priority),
            *(job.created_at, job.expires_at, job.max_attempts, job.initial_delay_s),
            *(job.max_delay_s, job.created_at, to_send, len(job.body)),
        ),
    )
    db.execute("INSERT INTO bodies VALUES (last_insert_rowid(), ?)", (job.body,))


def _room_in_s(db: Database, limits: Limits, outflow: Outflow, now: float) -> float:
    first = db.execute("SELECT min(settled_at) FROM jobs WHERE settled_at IS NOT NULL").fetchone()[
        0
    ]
    return limits.forgotten_in_s(first, now, outflow.wait_s())


def claim(
    db: Database, owner: str, now: float, limit: int, outflow: Outflow, *,
    alone: bool, without: Collection[str],
) -> list[ClaimedJob]:  # fmt: skip
    """Take requests for an owner. Those whose wait for a retry is over join the others first."""
    db.execute(
        "UPDATE jobs SET not_before = NULL WHERE seq IN (SELECT seq FROM jobs "
        "WHERE status = 'QUEUED' AND not_before <= ? ORDER BY not_before LIMIT ?)",
        (now, _PROMOTED_AT_ONCE),
    )
    waiting = db.execute("SELECT model FROM totals WHERE queued > 0").fetchall()
    first = [
        row
        for (model,) in waiting
        if model not in without
        for row in db.execute(READY, (model, int(alone), now, limit)).fetchall()
    ]
    taken = [_taken(db, owner, now, seq) for _, _, seq in sorted(first)[:limit]]
    outflow.note(len(taken))
    return [ClaimedJob(NewJob(*row[:-2]), *row[-2:]) for row in taken]


def _taken(db: Database, owner: str, now: float, seq: int) -> tuple[Any, ...]:
    db.execute(
        "UPDATE jobs SET status = 'IN_PROGRESS', status_at = ?, attempts = attempts + 1, owner = ? "
        "WHERE seq = ?",
        (now, owner, seq),
    )
    row: tuple[Any, ...] = db.execute(
        f"SELECT {_JOB}, attempts, interruptions "  # noqa: S608  constants
        "FROM jobs JOIN bodies ON bodies.seq = jobs.seq WHERE jobs.seq = ?",
        (seq,),
    ).fetchone()
    return row


def finish(db: Database, owner: str, request_id: str, done: Done, now: float) -> bool:
    """End a request that the owner works on."""
    row = db.execute(
        "SELECT seq FROM jobs WHERE request_id = ? AND owner = ? AND status = 'IN_PROGRESS'",
        (request_id, owner),
    ).fetchone()
    if row is None:
        return False
    _end(db, row[0], done, now)
    return True


def _end(db: Database, seq: int, done: Done, now: float) -> None:
    """Its body is not needed any more; its message can be sent from now on, if it has a webhook."""
    db.execute(
        "UPDATE jobs SET status = ?, status_at = ?, version = ?, errors = ?, finished_at = ?, "
        "send_at = iif(webhook IS NULL, NULL, ?), settled_at = iif(webhook IS NULL, ?, NULL), "
        "not_before = NULL, owner = NULL, held_bytes = ? WHERE seq = ?",
        (
            *(done.status, now, done.version, errors_text(done.errors), now, now, now),
            *(len(done.result or b""), seq),
        ),
    )
    db.execute("DELETE FROM bodies WHERE seq = ?", (seq,))
    if done.result is not None:
        db.execute("INSERT INTO results VALUES (?, ?)", (seq, done.result))


def retry(
    db: Database, owner: str, request_id: str, error: JobError, not_before: float, *,
    counted: bool, now: float,
) -> bool:  # fmt: skip
    """Queue a request of the owner's once more."""
    changed = db.execute(
        "UPDATE jobs SET status = 'QUEUED', status_at = ?, owner = NULL, not_before = ?, errors = ?, "
        "attempts = attempts - ? WHERE request_id = ? AND owner = ? AND status = 'IN_PROGRESS'",
        (now, not_before, errors_text([error]), int(not counted), request_id, owner),
    )
    return changed.rowcount > 0


def release(db: Database, owner: str, now: float) -> None:
    """Give back all that an owner has."""
    db.execute(
        "UPDATE jobs SET status = 'QUEUED', status_at = ?, owner = NULL, attempts = attempts - 1 "
        "WHERE owner = ? AND status = 'IN_PROGRESS'",
        (now, owner),
    )
    db.execute("UPDATE jobs SET owner = NULL WHERE owner = ?", (owner,))


def recover(db: Database, owners: frozenset[str], now: float, max_interruptions: int) -> Recovered:
    """Queue again, or end, all that other owners have."""
    left = [
        row
        for row in db.execute(
            "SELECT seq, owner, interruptions + 1, status FROM jobs WHERE owner IS NOT NULL"
        ).fetchall()
        if row[1] not in owners
    ]
    rows = [(seq, count) for seq, _, count, status in left if status == Status.IN_PROGRESS]
    db.executemany(
        "UPDATE jobs SET status = 'QUEUED', status_at = ?, owner = NULL, attempts = attempts - 1, "
        "interruptions = ?, alone = ? WHERE seq = ?",
        [(now, count, int(count > 1), seq) for seq, count in rows],
    )
    poison = [(seq, count) for seq, count in rows if count > max_interruptions]
    for seq, count in poison:
        _end(db, seq, Done(Status.FAILED, "", None, (interrupted(count),)), now)
    db.executemany("UPDATE jobs SET owner = NULL WHERE seq = ?", [(row[0],) for row in left])
    return Recovered(len(rows) - len(poison), len(poison))


def expire(db: Database, now: float) -> int:
    """End the first `EXPIRED_AT_ONCE` of what has expired."""
    rows = db.execute(
        "SELECT seq, errors FROM jobs WHERE status = 'QUEUED' AND attempts = 0 "
        "AND expires_at <= ? ORDER BY expires_at LIMIT ?",
        (now, EXPIRED_AT_ONCE),
    ).fetchall()
    for seq, errors in rows:
        _end(db, seq, Done(Status.EXPIRED, "", None, (*errors_of(errors), EXPIRED)), now)
    return len(rows)


def cancel(db: Database, request_id: str, now: float) -> JobRecord | None:
    """End a request if it is queued."""
    before = record(db, request_id)
    if before is not None and before.status is Status.QUEUED:
        (seq,) = db.execute("SELECT seq FROM jobs WHERE request_id = ?", (request_id,)).fetchone()
        _end(db, seq, Done(Status.CANCELED, "", None, before.errors), now)
        db.execute(
            "UPDATE jobs SET send_at = NULL, settled_at = ?, webhook_status = "
            "iif(webhook IS NULL, webhook_status, 'CANCELED') WHERE seq = ?",
            (now, seq),
        )
    return before


def record(db: Database, request_id: str) -> JobRecord | None:
    """What is known of a request."""
    row = db.execute(
        f"SELECT {_RECORD} FROM jobs WHERE request_id = ?",  # noqa: S608  constants
        (request_id,),
    ).fetchone()
    return None if row is None else as_record(row)


def result(db: Database, request_id: str) -> bytes | None:
    """The answer to a request."""
    row = db.execute(
        "SELECT result FROM results WHERE seq = (SELECT seq FROM jobs WHERE request_id = ?)",
        (request_id,),
    ).fetchone()
    return None if row is None else bytes(row[0])


def counts(db: Database, model: str | None) -> Counts:
    """Of one model or all."""
    return Counts(
        *db.execute(
            "SELECT coalesce(sum(queued), 0), coalesce(sum(in_progress), 0), "
            "coalesce(sum(kept), 0), coalesce(sum(held_bytes), 0) "
            "FROM totals WHERE ? IS NULL OR model = ?",
            (model, model),
        ).fetchone()
    )


def next_at(db: Database, now: float) -> float | None:
    """The first time after `now` at which something is to be done."""
    times = [
        db.execute(f"SELECT min({column}) FROM jobs WHERE {column} > ? AND {which}", (now,))  # noqa: S608
        for column, which in (
            ("not_before", "status = 'QUEUED'"),
            ("expires_at", "status = 'QUEUED' AND attempts = 0"),
            ("send_at", "owner IS NULL"),
        )
    ]
    return min(
        (at for (at,) in (rows.fetchone() for rows in times) if at is not None), default=None
    )


def sweep(db: Database, before: float, limit: int) -> int:
    """Forget what has been settled, and give some of the room back."""
    old = db.execute(
        "SELECT seq FROM jobs WHERE settled_at < ? ORDER BY settled_at LIMIT ?", (before, limit)
    ).fetchall()
    db.executemany("DELETE FROM results WHERE seq = ?", old)
    db.executemany("DELETE FROM jobs WHERE seq = ?", old)
    free, pages = (
        db.execute(f"PRAGMA {each}").fetchone()[0] for each in ("freelist_count", "page_count")
    )
    if free > pages // 4:  # up to there, what comes next will use it
        for _ in range(min(free, _VACUUMED_PAGES)):
            db.execute("PRAGMA incremental_vacuum(1)")  # of more, the driver would do one as well
    return len(old)
