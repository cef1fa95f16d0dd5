"""Requests as HTTP and answers from it. Pure: no socket is touched here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

from nerve_client import http_results
from nerve_client.errors import NerveError, ServerError, Unsupported, of_status
from nerve_client.requests import (
    Extract,
    GetModel,
    ListModels,
    Live,
    Predict,
    PredictTokens,
    Ready,
    Request,
    TextRequest,
)
from nerve_client.results import Answer

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

TIMEOUT_HEADER = "request-timeout-ms"
PRIORITY_HEADER = "x-nerve-priority"
MODEL_HEADER = "x-nerve-model"
VERSION_HEADER = "x-nerve-model-version"
TRUNCATED_HEADER = "x-nerve-truncated-inputs"
REASON_HEADER = "x-nerve-reason"
NOT_SERVED = ("not_served", "not_found", "")
"""Reasons of a 404 that is about the URL, from this server, an older one, something else; a model
that is not there has one of its own."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response; the names of `headers` in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange(Generic[ResultT]):
    """A request as it is sent, and how its reply is read.

    `read` gets a reply with one of the statuses `good`; ValueError, KeyError, TypeError and
    AttributeError from it mean that what answered is no server of ours.
    """

    method: str
    path: str
    read: Callable[[Reply], ResultT]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    good: tuple[int, ...] = (200,)

    def result(self, reply: Reply, base: str) -> ResultT:
        """What a reply means; `base` is the URL before the path, for messages.

        Raises:
            NerveError: it is an error, or nothing that the server would say.
        """
        if reply.status not in self.good:
            raise error_of(reply, base + self.path)
        try:
            return self.read(reply)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f"what answered {base}{self.path} does not speak this protocol: {error!r:.200}"
            )
            raise ServerError(message, status=reply.status, reason="invalid_answer") from error


def exchange(request: Request[ResultT], timeout_s: float) -> Exchange[ResultT]:
    """How a request is sent; `timeout_s` is the time it has."""
    made: Exchange[Any]
    match request:
        case Extract():
            made = _texts(
                request, timeout_s, "predict_tokens", _extract_body(request), http_results.entities
            )
        case PredictTokens():
            body = _predict_tokens_body(request)
            made = _texts(request, timeout_s, "predict_tokens", body, http_results.token_results)
        case Predict():
            body = {"inputs": request.texts, "offset_unit": request.offset_unit or "codepoint"}
            made = _texts(request, timeout_s, "predict", body, http_results.tokens)
        case ListModels():
            made = Exchange(
                "GET", "/v1/models", lambda reply: http_results.models(json.loads(reply.body))
            )
        case GetModel():
            path = f"/v1/models/{quote(request.name, safe='')}"
            made = Exchange("GET", path, lambda reply: http_results.model(json.loads(reply.body)))
        case Ready():
            made = Exchange("GET", "/readyz", _ready, good=(200, 503))
        case Live():
            made = Exchange("GET", "/livez", lambda reply: bool(json.loads(reply.body)["live"]))
        case _:
            raise AssertionError(request)
    return cast("Exchange[ResultT]", made)  # mypy cannot tie the cases to ResultT


def _texts(
    request: TextRequest[ItemT],
    timeout_s: float,
    route: str,
    body: Mapping[str, object],
    read: Callable[[Any], list[list[ItemT]]],
) -> Exchange[Answer[list[ItemT]]]:
    def answer(reply: Reply) -> Answer[list[ItemT]]:
        results = read(json.loads(reply.body))
        if len(results) != len(request.texts):
            raise ValueError(f"{len(results)} results for {len(request.texts)} texts")
        return Answer(
            results,
            model=reply.headers.get(MODEL_HEADER, ""),
            version=reply.headers.get(VERSION_HEADER, ""),
            truncated_texts=int(reply.headers.get(TRUNCATED_HEADER, 0)),
        )

    path = f"/{route}"
    if request.model is not None:
        if request.version is not None:
            path = f"/versions/{quote(str(request.version), safe='')}{path}"
        path = f"/v1/models/{quote(request.model, safe='')}{path}"
    # 0 would mean no limit.
    headers = {
        "content-type": "application/json",
        TIMEOUT_HEADER: str(max(1, math.ceil(timeout_s * 1e3))),
    }
    if request.priority is not None:
        headers[PRIORITY_HEADER] = str(request.priority)
    written = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Exchange("POST", path, answer, written, headers)


def _cut(request: Extract | PredictTokens) -> dict[str, object]:
    body: dict[str, object] = {
        "inputs": request.texts,
        "offset_unit": request.offset_unit or "codepoint",
    }
    if request.truncate is not None:
        body["truncate"] = request.truncate
    if request.truncation_side is not None:
        body["truncation_direction"] = request.truncation_side
    return body


def _extract_body(request: Extract) -> dict[str, object]:
    body = _cut(request)
    if request.aggregation is None:
        body["default_aggregation_strategy"] = "simple"
    else:
        body["aggregation_strategy"] = request.aggregation
    if request.threshold is not None:
        body["threshold"] = float(request.threshold)
    if request.labels is not None:
        body["labels"] = list(request.labels)
    return body


def _predict_tokens_body(request: PredictTokens) -> dict[str, object]:
    body = _cut(request) | {"raw_scores": request.raw_scores}
    if request.aggregation is not None:
        body["aggregation_strategy"] = request.aggregation
    if request.ignore_labels is not None:
        body["ignore_labels"] = list(request.ignore_labels)
    return body


def _ready(reply: Reply) -> bool:
    if reply.status == 200:
        return bool(json.loads(reply.body)["ready"])
    return False  # whoever says 503, a load balancer for instance


def error_of(reply: Reply, url: str) -> NerveError:
    """The error that a reply from a URL is, in any of the server's shapes or none of them."""
    message, reason = "", reply.headers.get(REASON_HEADER, "")
    text = reply.body.decode("utf-8", "replace").strip()
    try:
        body = json.loads(text)
        message = str(body["error"])
        reason = reason or str(body.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = reply.headers.get("content-type", "")
        message = text[:500] if kind.startswith("text/plain") else ""
    if reply.status == 404 and reason in NOT_SERVED:
        return Unsupported(f"nothing is served at {url}", status=404, reason="not_served")
    return of_status(
        reply.status,
        message or f"HTTP {reply.status} from {url}",
        reason=reason,
        retry_after_s=retry_after_s(reply.headers.get("retry-after"), time.time()),
    )


def retry_after_s(text: str | None, now_unix_s: float) -> float | None:
    """Seconds that a Retry-After header means, a number or a date; None if it says nothing."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_unix_s
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
