"""Clients that send slowly, read slowly, half leave or leave."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import suppress

import pytest

from faults.mistreated import (
    ONE,
    PATIENCE_S,
    Served,
    post,
    statuses,
    to_the_end,
    to_the_end_of,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("start", "status"),
    [(b"", []), (b"POST / HTTP/1.1\r\nHost: x\r\nX: ", [408]), (b"\r\n\r\nGET /", [408])],
    ids=["silence", "slowloris", "empty lines"],
)
async def test_a_head_must_come_in_time(served: Served, start: bytes, status: list[int]) -> None:
    """A byte now and then does not help."""
    with socket.create_connection(("127.0.0.1", served.http)) as caller:
        caller.sendall(start)
        began = time.monotonic()
        answer = asyncio.create_task(to_the_end_of(caller))
        while not answer.done() and time.monotonic() - began < 20:
            if start:
                with suppress(ConnectionError):
                    caller.send(b"a")
            await asyncio.wait({answer}, timeout=0.05)
        took = time.monotonic() - began
        assert statuses(await answer) == status
    assert 0.3 < took < 20


async def test_a_later_head_must_come_in_time_too(served: Served) -> None:
    began = time.monotonic()
    answers = await served.tell(post(), b"GET /livez HT")
    assert statuses(answers)[0] == 200
    assert statuses(answers)[1:] in ([], [408])
    assert time.monotonic() - began < 30  # a connection may be idle for longer


async def test_a_body_must_come_in_time(served: Served) -> None:
    head = post(body=b" " * 1000).split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert statuses(await served.tell(head, b"{")) == [408]


async def test_an_answer_must_be_read(served: Served) -> None:
    """A client that asks for much and reads nothing is let go; nobody else waits for it."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.setblocking(False)
    loop = asyncio.get_running_loop()
    before = served.files()
    await loop.sock_connect(caller, ("127.0.0.1", served.http))
    asked = 0
    try:  # more answers than buffers hold
        async with asyncio.timeout(3):
            while True:
                await loop.sock_sendall(caller, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
                asked += 1
                if asked > 400:
                    await asyncio.sleep(0.05)
                if asked > 400 and served.files() <= before:
                    break
    except (ConnectionError, TimeoutError):
        pass
    await until(lambda: served.files() <= before, "the connection is closed")
    caller.close()


async def test_a_half_closed_connection_is_answered(served: Served) -> None:
    """Whoever sends no more may still read."""
    for model in ("bert", "slow"):
        reader, writer = await served.dial()
        writer.write(post(model))
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            answers = await to_the_end(reader)
        assert statuses(answers)[-1] == 200, answers
        assert set(statuses(answers)) <= {102, 200}
        writer.close()


async def test_half_closed_in_the_middle_is_no_request(served: Served) -> None:
    reader, writer = await served.dial()
    writer.write(post()[:40])
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        assert await to_the_end(reader) == b""
    writer.close()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_callers_that_leave_free_their_places(served: Served, how: str) -> None:
    """Whether they say goodbye or not; nothing is computed for them."""
    before = served.files()
    runs = (await served.get("/v1/models/slow"))["versions"][0]["statistics"]["rows"]
    callers = [await served.dial() for _ in range(200)]
    for _, writer in callers:
        writer.write(post("slow", b'{"inputs":["a","b","c"]}'))
    for _, writer in callers:
        if how == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
    await until(lambda: served.files() <= before, "their connections are closed")
    async with asyncio.timeout(PATIENCE_S):
        while await served.waiting("slow"):
            await asyncio.sleep(0.02)
    after = (await served.get("/v1/models/slow"))["versions"][0]["statistics"]["rows"]
    assert after - runs < 600


async def test_a_body_that_breaks_off(served: Served) -> None:
    reader, writer = await served.dial()
    writer.write(post(body=ONE * 100)[:-50])
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        await to_the_end(reader)
    writer.close()
