"""Bodies of the routes for requests that are answered later. No decisions here but what fits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nerve.frontend.http.baseten import PredictTokensRequest
from nerve.jobs.message import moment
from nerve.jobs.records import JobRecord, Status, WebhookStatus


class _Described(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class InferenceRetryConfig(_Described):
    """When a request that failed for no fault of its own is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most times that it is tried."""
    initial_delay_ms: Annotated[int, Field(ge=0, le=10_000)] = 1000
    """Milliseconds from the first attempt to the second; twice as many after each further one."""
    max_delay_ms: Annotated[int, Field(ge=0, le=60_000)] = 5000
    """Most milliseconds between two attempts."""


class AsyncPredictRequest(_Described):
    """A request of predict_tokens, and what becomes of its answer. Unknown fields are ignored."""

    model_input: PredictTokensRequest
    """What predict_tokens would get."""
    webhook_endpoint: str | None = None
    """Where the answer is sent; without one it has to be fetched."""
    priority: Annotated[int, Field(ge=0, le=2)] = 0
    """0 goes first."""
    max_time_in_queue_seconds: Annotated[int, Field(ge=10, le=259_200)] = 600
    """Seconds after which it is not begun any more."""
    inference_retry_config: InferenceRetryConfig | None = None
    """When it is tried again."""


class AsyncAccepted(_Described):
    """It is kept, and will be answered."""

    request_id: str
    """By which it can be asked for."""


class AsyncError(_Described):
    """Why an attempt, or a delivery, failed."""

    code: str
    """As MODEL_INVALID_INPUT."""
    message: str


class AsyncRequestStatus(_Described):
    """Where a request is."""

    request_id: str
    model_id: str
    """Name of the model."""
    deployment_id: str
    """Its version that answered, or was asked for; else empty."""
    status: Literal[
        "QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "EXPIRED", "CANCELED", "WEBHOOK_FAILED"
    ]
    webhook_status: Literal["PENDING", "SUCCEEDED", "FAILED", "CANCELED", "NO_WEBHOOK_PROVIDED"]
    created_at: str
    """UTC, ISO 8601 with microseconds, as is the next."""
    status_at: str
    """Since when it has this status."""
    errors: list[AsyncError]


class AsyncCancellation(_Described):
    """What became of a wish to cancel."""

    request_id: str
    canceled: bool
    message: str


class AsyncQueueStatus(_Described):
    """Requests for a model that are not answered yet."""

    model_id: str
    """Name of the model."""
    deployment_id: str
    """Its version that answers; empty while none does."""
    num_queued_requests: Annotated[int, Field(ge=0)]
    num_in_progress_requests: Annotated[int, Field(ge=0)]


def status_of(record: JobRecord) -> dict[str, object]:
    """What is told of a request: `AsyncRequestStatus`. Pure."""
    return {
        "request_id": record.request_id,
        "model_id": record.model,
        "deployment_id": record.version,
        "status": record.status.value,
        "webhook_status": record.webhook_status.value,
        "created_at": moment(record.created_at),
        "status_at": moment(record.status_at),
        "errors": [{"code": code, "message": message} for code, message in record.errors],
    }


def cancellation_of(record: JobRecord, *, canceled: bool) -> dict[str, object]:
    """What is told who wants it canceled: `AsyncCancellation`. Pure."""
    if canceled:
        message = "the request is canceled"
    elif record.status is Status.CANCELED:
        message = "the request was canceled before"
    else:
        message = f"only a queued request can be canceled; this one is {record.status.value}"
        if record.webhook_status is WebhookStatus.PENDING and record.status is Status.SUCCEEDED:
            message += ", and its answer is being sent"
    return {"request_id": record.request_id, "canceled": canceled, "message": message}
