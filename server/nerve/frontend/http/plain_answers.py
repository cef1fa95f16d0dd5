"""Answers as bytes, for requests that nobody has read; each is the last on its connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from nerve.errors import InvalidRequest

END: Final = b"\r\n\r\n"
ALWAYS: Final = {
    "Server": "nerve",  # and not the versions of what it is made of
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""


def plain_answer(
    status: str, message: str, reason: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """An answer in the shape of our own errors; `status` is the number and its phrase."""
    body = orjson.dumps({"error": message, "reason": reason})
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in {**ALWAYS, **(headers or {})}.items()),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode() + END + body


TOO_SLOW: Final = plain_answer(
    "408 Request Timeout",
    "the head of the request did not come in time",
    InvalidRequest.reason,
)
TOO_LARGE: Final = plain_answer(
    "431 Request Header Fields Too Large",
    "the head of the request is too large",
    InvalidRequest.reason,
)
