"""One caller of the server: a plain socket, so that next to nothing but the server is timed."""

from __future__ import annotations

import re
import socket
import statistics
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lone import Lone

LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
TIMEOUT_S: Final = 60.0


def call(url: str, bodies: Path, *, seconds: float) -> Lone:
    """Send the bodies to `url` one after the other, on one connection, for `seconds`.

    Raises:
        RuntimeError: an answer was not 200.
        OSError: the connection broke.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    )
    requests = [
        f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        for body in bodies.read_bytes().splitlines()
    ]
    times: list[float] = []
    address = (parts.hostname, parts.port or 80)
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until = time.perf_counter() + seconds
        _exchange(connection, requests[0])
        while time.perf_counter() < until:
            request = requests[len(times) % len(requests)]
            began = time.perf_counter()
            _exchange(connection, request)
            times.append(time.perf_counter() - began)
    return Lone("server", statistics.fmean(times) * 1e3, statistics.median(times) * 1e3)


def _exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = connection.recv(65536)
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += _more(connection)
    length = LENGTH.search(answer, 0, end + 2)
    if not answer.startswith(b"HTTP/1.1 200 ") or length is None:
        raise RuntimeError(f"unexpected answer: {answer[:300]!r}")
    while len(answer) < end + 4 + int(length[1]):
        answer += _more(connection)


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise ConnectionError("the server closed the connection")
    return part
