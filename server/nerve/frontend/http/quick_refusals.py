"""Refusals for want of room, given again without looking at the request for longer than it takes to see
that it is the same one.

To parse a request, find its route and have its dialect write a refusal takes a fair part of what it
takes to answer it; with ten times more requests than fit, most of the work would go into that. So a
refusal is kept for a moment, by the request line that it was for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, web

from nerve.errors import QueueFull, ServerBusy
from nerve.exchange import Exchange, Exchanges
from nerve.frontend.admission import Admission
from nerve.types import ModelInfo

CROWD_S: Final = 1.0
"""How long a refusal is kept; it is given as long as there is no place."""
QUEUE_S: Final = 0.05
"""The same of one because a model's queue is full: not looked at in between."""
MOST: Final = 256
END: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,15}) *(?=\r\n)")
OTHERS: Final = re.compile(
    rb"transfer-encoding|expect|upgrade|connection:(?! *keep-alive\r)|origin|traceparent|-request-id|\0"
)
"""What a refusal may depend on, or what says where the request ends: such requests go the long way."""
OWN: Final = ("x-request-id", "traceparent", "connection", "content-length")


@dataclass(frozen=True, slots=True)
class Kept:
    """A refusal: its bytes up to where the request's id goes and after it; `crowd` if it is for the
    server as a whole, `until` in monotonic seconds."""

    exchange: Exchange
    start: bytes
    body: bytes
    crowd: bool
    until: float


class QuickRefusals:
    """What was refused a moment ago, by request line."""

    def __init__(self, exchanges: Exchanges, admission: Admission) -> None:
        self._exchanges, self._admission = exchanges, admission
        self._kept: dict[bytes, Kept] = {}
        self.count: Callable[[ModelInfo, str], bool] = lambda _info, _reason: True
        """Counts a refusal for the version that it was chosen for, with its reason; False if that
        version is there no longer."""
        self.stopped = False
        """Set when the server stops: connections are to be closed then."""

    def learn(self, request: web.BaseRequest, response: web.Response, exchange: Exchange) -> None:
        """Keep an answer, just before it is sent, if it is a refusal that others would get, too."""
        crowd = exchange.reason == ServerBusy.reason
        path = request.raw_path
        queue = exchange.reason == QueueFull.reason and "/models/" in path  # else the body names it
        if not (crowd or queue) or request.version != HttpVersion11 or not response.keep_alive:
            return
        if "Origin" in request.headers or not isinstance(response.body, bytes):
            return
        if len(self._kept) >= MOST:
            self._kept.clear()
        lines = [
            f"HTTP/1.1 {response.status} {response.reason}",
            *(
                f"{name}: {value}"
                for name, value in response.headers.items()
                if name.lower() not in OWN
            ),
            f"Content-Length: {len(response.body)}",
            "x-request-id: ",
        ]
        line = f"{request.method} {path} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
        until = time.monotonic() + (CROWD_S if crowd else QUEUE_S)
        start = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        self._kept[line] = Kept(exchange, start, END + response.body, crowd, until)

    def answer(self, data: bytes, peer: str) -> bytes | None:
        """The refusal for `data` if that is one whole request of those that are refused now; it is
        reported like any other."""
        if not self._kept or self.stopped:
            return None
        line = data[: data.find(b"\r\n") + 2]
        kept = self._kept.get(line)
        if kept is None:
            return None
        if time.monotonic() > kept.until or (kept.crowd and not self._admission.full):
            del self._kept[line]
            return None
        end = data.find(END)
        head = data[: end + 2].lower()
        lengths = LENGTH.findall(head)
        if (
            end < 0
            or len(lengths) != 1
            or head.count(b"content-length") != 1
            or int(lengths[0]) != len(data) - end - len(END)
            or OTHERS.search(head)
        ):
            return None
        was = kept.exchange
        if was.info is not None and not self.count(was.info, was.reason):
            del self._kept[line]
            return None
        exchange = Exchange(
            was.protocol,
            was.dialect,
            was.method,
            was.route,
            peer=peer,
            received_bytes=int(lengths[0]),
        )
        with self._exchanges.open(exchange, {}):
            exchange.status, exchange.reason, exchange.counts = was.status, was.reason, was.counts
            exchange.sent_bytes, exchange.info = was.sent_bytes, was.info
        return kept.start + exchange.request_id.encode() + kept.body
