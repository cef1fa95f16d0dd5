"""Bytes that are no request, or more than one."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest

from faults.mistreated import ONE, Served, post, statuses, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = b"GET /livez HTTP/1.1\r\nHost: hidden\r\n\r\n"
START = b"POST /v1/models/bert/predict_tokens HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ONE), ONE)
LENGTH = b"Content-Length: %d\r\n" % len(ONE)
SHAPES = {
    "length and chunked": START + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": START + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "chunked twice": START + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "two codings": START
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + CHUNKED,
    "chunked, identity": START + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "xchunked": START + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "unknown coding": START + b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKED,
    "space before colon": START + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "folded header": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "lengths differ": START + LENGTH + b"Content-Length: 3\r\n\r\n" + ONE,
    "lengths equal": START + LENGTH * 2 + b"\r\n" + ONE,
    "length list": START + b"Content-Length: 3, 3\r\n\r\n" + ONE,
    "length negative": START + b"Content-Length: -1\r\n\r\n" + ONE,
    "length signed": START + b"Content-Length: +51\r\n\r\n" + ONE,
    "length in hex": START + b"Content-Length: 0x33\r\n\r\n" + ONE,
    "length huge": START + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + ONE,
    "chunk negative": START + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "chunk in 0x": START + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunk huge": START + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\nabc\r\n",
    "chunk of no size": START + b"Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
    "chunk too short": START + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "bare LF": START.replace(b"\r\n", b"\n") + b"Content-Length: 2\n\n{}",
    "NUL in a header": START + b"X: a\0b\r\n" + LENGTH + b"\r\n" + ONE,
    "CR in a header": START + b"X: a\rContent-Length: 0\r\n" + LENGTH + b"\r\n" + ONE,
    "header without name": START + b": x\r\n" + LENGTH + b"\r\n" + ONE,
    "no colon": START + b"nonsense\r\n" + LENGTH + b"\r\n" + ONE,
    "space in the target": START.replace(b"models/", b"models /") + LENGTH + b"\r\n" + ONE,
    "old version": START.replace(b"HTTP/1.1", b"HTTP/9.9") + LENGTH + b"\r\n" + ONE,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
async def test_what_may_be_read_in_two_ways_is_refused(impatient: Served, shape: str) -> None:
    """The connection ends with the refusal, so that what is hidden behind it is never answered."""
    before = impatient.files()
    answers = await impatient.tell(SHAPES[shape] + HIDDEN)
    assert statuses(answers) == [400], answers[:300]
    await until(lambda: impatient.files() <= before, "its connection is closed")


@pytest.mark.parametrize("target", [b"\\metrics", b"*", b"http://["])
async def test_what_no_route_sees_is_answered_like_the_rest(
    impatient: Served, target: bytes
) -> None:
    """In our shape, without the names of libraries or the client's bytes; and it is counted."""
    counted = 'nerve_requests_total{dialect="native",status="400"}'

    async def count() -> float:
        page = await impatient.tell(
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        lines = [line.split() for line in page.decode().splitlines() if line.startswith(counted)]
        return float(lines[0][1]) if lines else 0.0

    before = await count()
    answer = await impatient.tell(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) == [400]
    assert json.loads(body).keys() == {"error", "reason"}
    assert json.loads(body)["reason"] == "invalid_request"
    assert b"nonsense" not in body
    for header in ("Server: nerve", "X-Content-Type-Options: nosniff", "Cache-Control: no-store"):
        assert header.encode() in head.split(b"\r\n"), head
    assert await count() == before + 1


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    many = [post(body=b'{"inputs":"%d"}' % at) for at in range(40)]
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = await served.tell(b"".join(many) + last)
    assert statuses(answers) == [200] * 41


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez?" + b"x" * 20_000,
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: %0100d\r\n" % (n, n) for n in range(200)),
    ],
    ids=["target", "one header", "many"],
)
async def test_floods_of_headers_are_refused(served: Served, head: bytes) -> None:
    """At the limit, not at the end."""
    answers = await served.tell(head)
    assert statuses(answers) == [431]
    assert b"too large" in answers


async def test_many_small_headers_are_refused(served: Served) -> None:
    head = b"GET /livez HTTP/1.1\r\n" + b"A:\r\n" * 500 + b"\r\n"
    assert statuses(await served.tell(head)) == [400]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_bombs_are_not_inflated(served: Served, coding: str) -> None:
    """Twenty at the same time, 100 MB each once inflated."""
    plain = b" " * 100_000_000
    bomb = gzip.compress(plain, 6) if coding == "gzip" else zlib.compress(plain, 6)
    request = post("bert", bomb, f"Content-Encoding: {coding}", "Connection: close")
    answers = await asyncio.gather(*(served.tell(request) for _ in range(20)))
    assert [statuses(each) for each in answers] == [[413]] * 20
