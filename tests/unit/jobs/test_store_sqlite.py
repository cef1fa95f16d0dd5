"""A store in a file: whose it is, what outlives a kill, and what a full disk does."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from job_stores import ENDED, Place, claimed, new
from nerve.config.server import ServerConfig
from nerve.errors import StoreFailed, StoreUnavailable
from nerve.jobs.records import Counts, JobStore
from nerve.jobs.sqlite_steps import READY
from nerve.jobs.sqlite_tables import MIGRATIONS
from nerve.jobs.stores import new_job_store

PATIENCE_S = 60
ADDER = """
import asyncio, sys
from pathlib import Path
from job_stores import Place, new
from nerve.jobs.limits import Limits

async def add(store, first):
    for number in range(first, 1_000_000, 16):
        await store.add(new(str(number)))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

async def main():
    store = Place(Path(sys.argv[1]), None).store(Limits(10**9, 10**12, 60.0))
    await store.open()
    await asyncio.gather(*(add(store, first) for first in range(16)))

asyncio.run(main())
"""


async def opened(path: Path) -> JobStore:
    store = Place(path, None).store()
    await store.open()
    return store


async def refused(path: Path) -> str:
    """Why a file is not taken; nothing stays open."""
    store = Place(path, None).store()
    with pytest.raises(StoreUnavailable) as error:
        await store.open()
    assert str(path) in str(error.value)
    return str(error.value)


async def test_nothing_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Every request whose `add` had returned is there, and the next server may have the file."""
    path = tmp_path / "jobs.db"
    tests = Path(__file__).parents[2]
    adder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ADDER, path, cwd=tests, stdout=asyncio.subprocess.PIPE
    )
    assert adder.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            told = [await adder.stdout.readline() for _ in range(200)]
            adder.send_signal(signal.SIGKILL)
            rest = await adder.stdout.read()
            assert await adder.wait() == -signal.SIGKILL
    finally:
        if adder.returncode is None:
            adder.kill()
            await adder.wait()
    whole = [line for line in (*told, *rest.splitlines(keepends=True)) if line.endswith(b"\n")]
    store = await opened(path)
    for line in whole:
        assert await store.record(line.decode().strip()) is not None
    counts = await store.counts()
    assert len(whole) <= counts.queued == counts.kept
    assert counts.held_bytes == counts.kept * 16
    await store.aclose()


async def test_a_file_is_of_one_server(tmp_path: Path) -> None:
    """Also by another name; when that one has closed it, the next may have it."""
    path, link = tmp_path / "jobs.db", tmp_path / "link.db"
    link.symlink_to(path)
    first = await opened(path)
    assert "another server has it" in await refused(path)
    assert "another server has it" in await refused(link)
    await first.add(new("1"))
    await first.aclose()
    second = await opened(link)
    assert await second.record("1") is not None
    await second.aclose()


async def test_others_cannot_read_it(tmp_path: Path) -> None:
    store = await opened(tmp_path / "jobs.db")
    await store.add(new("1"))
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    await store.aclose()
    assert set(modes.values()) == {0o600}
    assert {"jobs.db", "jobs.db-wal", "jobs.db.lock"} <= set(modes)


async def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """Each tells what is wrong."""
    assert f"there is no folder {tmp_path / 'no'}" in await refused(tmp_path / "no" / "jobs.db")
    assert "it is a folder" in await refused(tmp_path)
    assert "jobs.db" in await refused(Path("/proc/jobs.db"))
    text = tmp_path / "notes.txt"
    text.write_text("no database, but a text that is long enough" * 100)
    assert "not a database" in await refused(text)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE own (a)")
    db.close()
    assert "of another program" in await refused(foreign)


async def test_a_newer_server_s_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await (await opened(path)).aclose()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    assert f"its schema is {len(MIGRATIONS) + 1}" in await refused(path)


async def test_a_full_disk_fails_what_cannot_be_written(tmp_path: Path) -> None:
    """The kernel refuses to let files grow; afterwards all is as it was."""
    path = tmp_path / "jobs.db"
    store = await opened(path)
    await store.add(new("1"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = (tmp_path / "jobs.db-wal").stat().st_size + 8192
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
        outcomes = await asyncio.gather(
            *(store.add(new(str(number), body=b"x" * 50_000)) for number in range(2, 5)),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes] == [StoreFailed] * 3
        assert await store.record("1") is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await store.add(new("2"))
    assert await store.counts() == Counts(2, 0, 2, 32)
    await store.aclose()
    store = await opened(path)
    assert await store.counts() == Counts(2, 0, 2, 32)
    await store.aclose()


async def test_room_is_given_back(tmp_path: Path) -> None:
    """The file is smaller once what it held is forgotten."""
    path = tmp_path / "jobs.db"
    store = await opened(path)
    for number in range(12):
        await store.add(new(str(number), body=b"x" * 80_000))
    for request_id in await claimed(store):
        await store.finish("a", request_id, ENDED, 120.0)
    assert await store.sweep(200.0, 99) == 12
    await store.aclose()
    assert path.stat().st_size < 200_000


async def test_what_was_claimed_is_claimed_after_a_restart(tmp_path: Path) -> None:
    """Until it is recovered: an owner that is gone does not come back."""
    path = tmp_path / "jobs.db"
    store = await opened(path)
    await store.add(new("1"))
    assert await claimed(store, "before") == ["1"]
    await store.aclose()
    store = await opened(path)
    assert await claimed(store, "after") == []
    assert await store.recover(frozenset({"after"}), 120.0, 3) == (1, 0)
    assert await claimed(store, "after") == ["1"]
    await store.aclose()


async def test_the_setting_says_which_store(tmp_path: Path) -> None:
    store = new_job_store(ServerConfig(async_store=str(tmp_path / "own.db"), async_max_queued=1))
    await store.open()
    await store.add(new("1"))
    assert not store.shared
    assert await store.counts() == Counts(1, 0, 1, 16)
    await store.aclose()
    assert (tmp_path / "own.db").exists()
    with pytest.raises(ValueError, match="async_store is not set"):
        new_job_store(ServerConfig())


async def test_a_claim_reads_no_more_than_it_may_take(tmp_path: Path) -> None:
    """However many requests wait for other models: an index leads to the first ones, in their order."""
    store = await opened(tmp_path / "jobs.db")
    await store.aclose()
    db = sqlite3.connect(tmp_path / "jobs.db")
    rows = db.execute(f"EXPLAIN QUERY PLAN {READY}", ("ner", 0, 110.0, 9)).fetchall()
    db.close()
    assert [row[-1] for row in rows] == ["SEARCH jobs USING INDEX jobs_ready (model=? AND alone=?)"]
