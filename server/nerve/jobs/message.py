"""What a webhook gets (Baseten's contract, section 9.3)."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from nerve.jobs.records import Delivery

REQUEST_ID_HEADER = "X-BASETEN-REQUEST-ID"
SIGNATURE_HEADER = "X-BASETEN-SIGNATURE"
KIND = "async_request_completed"


def message_of(delivery: Delivery) -> bytes:
    """The body, JSON. Pure."""
    return orjson.dumps(
        {
            "request_id": delivery.request_id,
            "model_id": delivery.model,
            "deployment_id": delivery.version,
            "type": KIND,
            "time": moment(delivery.finished_at),
            "data": None if delivery.result is None else orjson.Fragment(delivery.result),
            "errors": [each._asdict() for each in delivery.errors],
        }
    )


def moment(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 with microseconds, in UTC. Pure."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
