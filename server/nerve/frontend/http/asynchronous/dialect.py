"""The routes: submit, status, result, cancel, and how long the queue is."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import (
    AsyncBodyTooLarge,
    AsyncRequestNotFound,
    BodyTooLarge,
    InvalidField,
    Unsupported,
)
from nerve.exchange import Access, current
from nerve.frontend.http.asynchronous.schemas import (
    AsyncAccepted,
    AsyncCancellation,
    AsyncPredictRequest,
    AsyncQueueStatus,
    AsyncRequestStatus,
    InferenceRetryConfig,
    cancellation_of,
    status_of,
)
from nerve.frontend.http.baseten import Prediction, span_request
from nerve.frontend.http.body import check, load_json, read_body
from nerve.frontend.http.dialect import ASYNC, JSON, Handler, Route, json_response
from nerve.frontend.http.tei import PLACES, TeiDialect
from nerve.jobs.addresses import check_webhook
from nerve.jobs.records import NewJob
from nerve.offload import INLINE_BYTES, offload
from nerve.service.inference import Call, InferenceService

if TYPE_CHECKING:
    from nerve.jobs.service import JobService

OF_REQUEST: Final = "/async_request/{request_id}"
REQUEST_ID: Final = re.compile("[0-9a-f]{32}")
"""What `_job` makes."""
EXAMPLE: Final = {
    "model_input": {"inputs": ["Ada Lovelace lived in London"], "aggregation_strategy": "max"},
    "priority": 0,
    "max_time_in_queue_seconds": 600,
}
OFF: Final = (
    "the server was started without a place to keep requests; start it with --async-store FILE, "
    "or --async-store postgresql://…"
)


class AsyncDialect(TeiDialect):
    """predict_tokens for those who do not wait for the answer."""

    name = "async"

    def __init__(
        self, jobs: JobService | None, inference: InferenceService, config: ServerConfig
    ) -> None:
        """Without `jobs` every route says that there are none."""
        self._jobs, self._inference, self._config = jobs, inference, config

    def routes(self) -> list[Route]:
        """See `Dialect.routes`."""
        places = [("/async" + prefix, suffix) for prefix, suffix in PLACES]
        return [
            self._submission("/async_predict", "async_predict"),
            *(
                self._submission(f"{prefix}/predict_tokens", f"async_predict_tokens{suffix}")
                for prefix, suffix in places
            ),
            _route("GET", OF_REQUEST, self._status, Access.PREDICT, {
                "operationId": "get_async_request",
                "summary": "Where a request that is answered later is",
                "responses": {"200": {"model": AsyncRequestStatus}},
            }),
            _route("GET", f"{OF_REQUEST}/result", self._result, Access.PREDICT, {
                "operationId": "get_async_result",
                "summary": "The answer, as predict_tokens would have given it",
                "responses": {"200": {"model": list[list[Prediction]]}},
                "errors": ("404", "409", "500", "501"),
                "descriptions": {"409": "There is no answer: not yet, or it ended without one."},
            }),
            _route("DELETE", OF_REQUEST, self._cancel, Access.PREDICT, {
                "operationId": "cancel_async_request",
                "summary": "Cancel a request that waits",
                "responses": {"200": {"model": AsyncCancellation}},
                "errors": ("404", "429", "500", "501"),
            }),
            *(
                _route("GET", f"{prefix}/async_queue_status", self._queue, Access.READ, {
                    "operationId": f"async_queue_status{suffix}",
                    "summary": "How many requests for a model are not answered yet",
                    "responses": {"200": {"model": AsyncQueueStatus}},
                })
                for prefix, suffix in (PLACES[0], places[1])
            ),
        ]  # fmt: skip

    def _submission(self, path: str, name: str) -> Route:
        return _route("POST", path, self._submit, Access.PREDICT, {
            "operationId": name,
            "summary": "Find entities in texts later: answered at once with an id",
            "request": AsyncPredictRequest, "required": True, "example": EXAMPLE,
            "responses": {"201": {"model": AsyncAccepted}},
            "errors": ("400", "404", "408", "413", "415", "422", "429", "500", "501", "503"),
            "descriptions": {"429": "Too many requests are kept; try again."},
        })  # fmt: skip

    @property
    def _on(self) -> JobService:
        """Raises Unsupported: there are no requests that are answered later."""
        if self._jobs is None:
            raise Unsupported("async inference", OFF)
        return self._jobs

    async def _submit(self, request: web.Request) -> web.Response:
        jobs, config, match = self._on, self._config, request.match_info
        body = await self._body(request)
        asked, kept = await offload(lambda: _read(body), inline=len(body) <= INLINE_BYTES)
        if asked.webhook_endpoint is not None:
            check_webhook(asked.webhook_endpoint, config.async_webhook_networks)
        version = match.get("version")
        call = Call(match.get("model"), version, None, config.max_client_batch_size)
        try:
            model = self._inference.accept(call, span_request(asked.model_input))
        except InvalidField as error:
            raise InvalidField(f"model_input.{error.field}", error.fault) from error
        job = _job(asked, kept, model, version)
        await jobs.submit(job)
        return json_response({"request_id": job.request_id}, status=201)

    async def _body(self, request: web.Request) -> bytes:
        """Raises what `read_body` raises; of one that is too large, its size as far as it is known."""
        limit = self._config.async_max_body_bytes
        try:
            return await read_body(
                request, limit_bytes=limit, timeout_s=self._config.body_timeout_s
            )
        except BodyTooLarge as error:
            given = max(request.content_length or 0, limit + 1)
            raise AsyncBodyTooLarge(given, limit) from error

    async def _status(self, request: web.Request) -> web.Response:
        record = await self._on.status(self._request_id(request), _key())
        return json_response(status_of(record))

    async def _result(self, request: web.Request) -> web.Response:
        body = await self._on.result(self._request_id(request), _key())
        return web.Response(body=body, content_type=JSON)

    async def _cancel(self, request: web.Request) -> web.Response:
        canceled, record = await self._on.cancel(self._request_id(request), _key())
        return json_response(cancellation_of(record, canceled=canceled))

    def _request_id(self, request: web.Request) -> str:
        """Raises AsyncRequestNotFound: it is no id of ours. A store may not be able to look for one
        (PostgreSQL has no text with NUL), and that is no fault of the store's."""
        request_id = request.match_info["request_id"]
        if REQUEST_ID.fullmatch(request_id) is None:
            raise AsyncRequestNotFound(request_id, self._config.async_retention_s)
        return request_id

    async def _queue(self, request: web.Request) -> web.Response:
        jobs = self._on
        model, version = self._inference.default(request.match_info.get("model"))
        counts = await jobs.counts(model)
        told = {
            "model_id": model,
            "deployment_id": version,
            "num_queued_requests": counts.queued,
            "num_in_progress_requests": counts.in_progress,
        }
        return json_response(told)


def _route(
    method: str, path: str, handler: Handler, access: Access, operation: Mapping[str, Any]
) -> Route:
    operation = {"tags": ["Async"], "errors": ("404", "500", "501"), **operation}
    return Route(method, path, handler, access, operation, prefixes=ASYNC)


def _read(body: bytes) -> tuple[AsyncPredictRequest, bytes]:
    """The checked request, and what is kept of it: the fields of predict_tokens that it has.

    Raises:
        MalformedBody, InvalidField.
    """
    asked = check(load_json(body), AsyncPredictRequest)
    return asked, asked.model_input.model_dump_json(exclude_unset=True).encode()


def _job(asked: AsyncPredictRequest, kept: bytes, model: str, version: str | None) -> NewJob:
    now, retries = time.time(), asked.inference_retry_config or InferenceRetryConfig()
    return NewJob(
        request_id=uuid.uuid4().hex,
        key=_key(),
        model=model,
        version=version,
        body=kept,
        webhook=asked.webhook_endpoint,
        priority=asked.priority,
        created_at=now,
        expires_at=now + asked.max_time_in_queue_seconds,
        max_attempts=retries.max_attempts,
        initial_delay_s=retries.initial_delay_ms / 1e3,
        max_delay_s=retries.max_delay_ms / 1e3,
    )


def _key() -> str | None:
    """Name of the key that the request came with."""
    exchange = current()
    return None if exchange is None else exchange.key
