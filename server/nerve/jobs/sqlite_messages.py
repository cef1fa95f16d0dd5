"""What each method of the store does in SQLite for messages to webhooks, inside a transaction."""

from __future__ import annotations

from nerve.jobs.kept import as_delivery, errors_text
from nerve.jobs.records import Delivery, JobError
from nerve.jobs.sqlite_file import Database


def claim_deliveries(db: Database, owner: str, now: float, limit: int) -> list[Delivery]:
    """Take messages for an owner."""
    rows = db.execute(
        "SELECT jobs.seq, request_id, model, "
        "CASE version WHEN '' THEN coalesce(asked_version, '') ELSE version END, webhook, status, "
        "finished_at, result, errors, deliveries "
        "FROM jobs LEFT JOIN results ON results.seq = jobs.seq "
        "WHERE send_at <= ? AND owner IS NULL ORDER BY send_at, jobs.seq LIMIT ?",
        (now, limit),
    ).fetchall()
    db.executemany("UPDATE jobs SET owner = ? WHERE seq = ?", [(owner, row[0]) for row in rows])
    return [as_delivery(row[1:]) for row in rows]


def delivered(db: Database, owner: str, request_id: str, now: float) -> bool:
    """Nothing is left to do for it."""
    changed = db.execute(
        "UPDATE jobs SET webhook_status = 'SUCCEEDED', webhook_error = NULL, send_at = NULL, "
        "settled_at = ?, deliveries = deliveries + 1, owner = NULL "
        "WHERE request_id = ? AND owner = ? AND send_at IS NOT NULL",
        (now, request_id, owner),
    )
    return changed.rowcount > 0


def undelivered(
    db: Database, owner: str, request_id: str, error: JobError, now: float, again_at: float | None, *,
    counted: bool,
) -> bool:  # fmt: skip
    """Its message is sent again, or never."""
    changed = db.execute(
        "UPDATE jobs SET webhook_error = ?, deliveries = deliveries + ?, owner = NULL, send_at = ? "
        "WHERE request_id = ? AND owner = ? AND send_at IS NOT NULL",
        (errors_text([error]), int(counted), again_at, request_id, owner),
    )
    if changed.rowcount and again_at is None:
        db.execute(
            "UPDATE jobs SET webhook_status = 'FAILED', settled_at = ?, "
            "status_at = iif(status = 'SUCCEEDED', ?, status_at), "
            "status = iif(status = 'SUCCEEDED', 'WEBHOOK_FAILED', status) WHERE request_id = ?",
            (now, now, request_id),
        )
    return changed.rowcount > 0
