"""What both stores keep alike: errors as JSON, rows as records, and why a request ended by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from nerve.jobs.records import Delivery, JobError, JobRecord, Status, WebhookStatus

Row = Sequence[Any]

EXPIRED: Final = JobError(
    "REQUEST_EXPIRED", "no attempt had begun when the request's time in the queue was over"
)


def interrupted(interruptions: int | str) -> JobError:
    """Why a request fails whose server went away so often."""
    return JobError(
        "INTERNAL_SERVER_ERROR",
        f"the server went away {interruptions} times while it worked on this request",
    )


def errors_text(errors: Sequence[JobError]) -> str:
    """As they are kept: a list of [code, message]."""
    return orjson.dumps([list(error) for error in errors]).decode()


def errors_of(text: str, last: str | None = None) -> tuple[JobError, ...]:
    """Those of a request, and those of its message to the webhook if there are any."""
    pairs = [*orjson.loads(text), *orjson.loads(last or "[]")]
    return tuple(JobError(code, message) for code, message in pairs)


def as_record(row: Row) -> JobRecord:
    """A record out of its columns, in its order; the last are the errors, and those of its message."""
    request_id, key, model, version, status, webhook_status, created_at, status_at, *errors = row
    return JobRecord(
        request_id,
        key,
        model,
        version,
        Status(status),
        WebhookStatus(webhook_status),
        created_at,
        status_at,
        errors_of(*errors),
    )


def as_delivery(row: Row) -> Delivery:
    """A message out of its columns, in its order."""
    request_id, model, version, webhook, status, finished_at, result, errors, deliveries = row
    return Delivery(
        request_id,
        model,
        version,
        webhook,
        Status(status),
        finished_at,
        result,
        errors_of(errors),
        deliveries,
    )
