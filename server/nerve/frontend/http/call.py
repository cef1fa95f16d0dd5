"""What an inference request says outside its body: model, version, time limits, priority."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from aiohttp import web

from nerve.errors import DeadlineExceeded, InvalidField
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.service.inference import Call, InferenceService

TIMEOUT_HEADER = "request-timeout-ms"
DEADLINE_HEADER = "request-deadline-ms"
CLOCK_SKEW_S = 60.0
"""A deadline further back than this tells of a wrong clock, not of a late request."""


def read_call(request: web.Request, inference: InferenceService, *, max_texts: int) -> Call:
    """The call of a request that arrives now. Headers are those of Baseten, on every route.

    Raises:
        InvalidField: a header has a wrong value.
        DeadlineExceeded: the caller's deadline has just passed.
    """
    arrived = time.monotonic()
    headers, match = request.headers, request.match_info
    return Call(
        match.get("model"),
        match.get("version"),
        inference.deadline(arrived, timeout_s=timeout_s(headers, time.time())),
        max_texts,
        priority=parse_priority(headers.get(PRIORITY_KEY), place="header"),
        arrived=arrived,
    )


def timeout_s(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """Seconds that the client still waits, by its two headers; None if it does not say.

    Raises:
        InvalidField: a header is no number of milliseconds.
        DeadlineExceeded: the deadline has just passed.
    """
    timeout = _milliseconds(headers, TIMEOUT_HEADER)
    deadline = _milliseconds(headers, DEADLINE_HEADER)
    left = []
    if timeout is not None and timeout > 0:
        left.append(timeout / 1e3)
    if deadline is not None:
        until = deadline / 1e3 - now_unix_s
        if -CLOCK_SKEW_S < until <= 0:
            raise DeadlineExceeded
        if until > 0:
            left.append(until)
    return min(left, default=None)


def _milliseconds(headers: Mapping[str, str], name: str) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidField(f"header {name}", f"expected milliseconds, got {text!r:.40}")
    return value
