"""More connections than there may be, or than the system has files for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from faults.mistreated import (
    PATIENCE_S,
    Served,
    calm,
    post,
    serving,
    statuses,
    to_the_end,
    to_the_end_of,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LIMIT = 20
ID = re.compile(rb"x-request-id: (\S+)", re.IGNORECASE)
NAMES = re.compile(rb"\r\n([a-z-]+):")
FEW_FILES = 260


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A daemon for few connections and few requests."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    limits = "--max-connections", str(LIMIT), "--max-requests-in-flight", "5"
    async with serving(repository, log, *limits) as served:
        yield served
        served.terminate()
        assert await served.ended() == 0
    calm(log.read_text())


@contextlib.asynccontextmanager
async def dialled(served: Served, count: int) -> AsyncIterator[list[Ends]]:
    """So many connections that say nothing."""
    ends: list[Ends] = []
    try:
        for _ in range(count):
            ends.append(await served.dial())  # noqa: PERF401  all are closed if one fails
        yield ends
    finally:
        for _, writer in ends:
            writer.transport.abort()
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def silent(served: Served, count: int, *, port: str = "http") -> Iterator[list[socket.socket]]:
    """So many connections that say nothing, as fast as can be."""
    with contextlib.ExitStack() as stack:
        address = "127.0.0.1", served.ports[port]
        yield [stack.enter_context(socket.create_connection(address)) for _ in range(count)]


async def test_a_thousand_idle_connections(repository: Path, tmp_path: Path) -> None:
    """They cost nobody anything, though the shell allows 256 files: that limit is raised."""
    log = tmp_path / "stderr"
    patient = "--head-timeout", "60"
    async with serving(repository, log, *patient, shell="ulimit -Sn 256") as served:
        assert await served.ask() == 200
        before = served.files()
        with silent(served, 1000):
            await until(lambda: served.files() >= 1000, "all are accepted")
            began = time.monotonic()
            assert [await served.ask() for _ in range(5)] == [200] * 5
            assert time.monotonic() - began < 20  # of 60
        await until(lambda: served.files() <= before, "all are closed")
        served.terminate()
        assert await served.ended() == 0
    calm(log.read_text())


async def test_an_idle_connection_gives_way(small: Served) -> None:
    """The one that has been idle for longest, when all places are taken."""
    async with dialled(small, LIMIT) as ends:
        await asyncio.sleep(1.1)  # younger ones are left alone
        assert await small.ask() == 200
        async with asyncio.timeout(PATIENCE_S):
            await to_the_end(ends[0][0])
        assert not ends[-1][0].at_eof()


async def test_one_too_many_is_refused(small: Served) -> None:
    """In the words of its dialect, with a time; but for probes. Later all is as before."""
    async with aiohttp.ClientSession(small.url) as http, dialled(small, LIMIT):
        async with http.post("/v1/models/bert/predict_tokens", data=b"{}") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert answer.headers["x-nerve-reason"] == "server_busy"
            assert (await answer.json())["error_type"] == "Overloaded"
            assert answer.headers["Connection"] == "close"
        async with http.post("/v2/models/bert/infer", data=b"{}") as answer:
            assert answer.status == 503
            assert "20 connections" in (await answer.json())["error"]
        for probe in ("/livez", "/readyz", "/v2/health/ready", "/health"):
            async with http.get(probe) as answer:
                assert answer.status == 200, probe
    assert await small.ask() == 200


async def test_a_flood_of_connections(small: Served) -> None:
    """Those for which there is no place at all are told and closed; probes still get through."""
    with silent(small, LIMIT + 200) as ends:  # at once: who is silent for a second is only closed
        assert await small.status("/livez") == 200
        reading = [asyncio.create_task(to_the_end_of(each)) for each in ends]
        await until(lambda: sum(task.done() for task in reading) >= 200, "the others are told")
        done, rest = await asyncio.wait(reading, timeout=0)
        assert len(rest) <= LIMIT
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        refused = [answer for task in done if (answer := task.result())]
        assert len(refused) > 50
        assert {tuple(statuses(answer)) for answer in refused} == {(503,)}
        assert all(b"Retry-After: 1\r\n" in answer for answer in refused)
    await until(lambda: small.files() < 100, "all are closed")
    assert await small.ask() == 200


async def test_requests_in_flight_are_limited(small: Served) -> None:
    """One more is refused before its body is read, on a connection that stays."""
    async with dialled(small, 7) as ends:
        for reader, writer in ends[:5]:
            writer.write(post("slow"))
            del reader
        reader, writer = ends[5]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                writer.write(post("slow", b"no JSON"))
                told = await reader.readuntil(b"}")
                if statuses(told) == [429]:
                    break
            assert b"server_busy" in told
            again = []
            for _ in range(3):  # quick ones: the same but for what is each request's own
                writer.write(post("slow", b"no JSON"))
                again.append(await reader.readuntil(b"}"))
            assert {refusal.partition(b"\r\n\r\n")[2] for refusal in again} == {
                told.partition(b"\r\n\r\n")[2]
            }
            assert len({number for refusal in again for number in ID.findall(refusal)}) == 3
            assert sorted(NAMES.findall(again[0].lower())) == sorted(NAMES.findall(told.lower()))
            writer.write(post("slow", b"no JSON", "X-Request-Id: mine"))
            assert b"mine" in await reader.readuntil(b"}")
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await reader.readline()
            answers = [await each.readuntil(b"}") for each, _ in ends[:5]]
        assert [statuses(answer) for answer in answers] == [[200]] * 5
    assert await small.ask() == 200


async def test_running_out_of_files(repository: Path, tmp_path: Path) -> None:
    """Neither protocol takes more connections than there are files for, nor those of the other."""
    log = tmp_path / "stderr"
    async with serving(repository, log, shell=f"ulimit -n {FEW_FILES}") as served:
        assert await served.ask() == 200
        before = served.files()
        with silent(served, FEW_FILES * 2):
            assert await served.status("/livez") == 200
        await until(lambda: served.files() <= before, "all are closed")
        with silent(served, FEW_FILES, port="grpc"):
            assert await served.ask() == 200
            with silent(served, FEW_FILES):
                assert await served.status("/livez") == 200
        await until(lambda: served.files() <= before, "all are closed")
        assert await served.ask() == 200
        served.terminate()
        assert await served.ended() == 0
    told = log.read_text()
    calm(told)
    for setting in ("max_connections is 4096", "grpc_max_connections is 1024"):
        assert f"{setting}, but this process may open no more files" in told
