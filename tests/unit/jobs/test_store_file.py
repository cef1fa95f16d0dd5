"""The file of a store in SQLite: noticed when it goes, and left as it was by a start that is refused."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from job_stores import Place, new
from job_tools import Worker, job_config, new_job, running
from nerve.errors import StoreFailed, StoreUnavailable
from nerve.jobs.sqlite_tables import APPLICATION_ID


def removed(path: Path) -> None:
    """As `rm jobs.db*` does."""
    for each in path.parent.glob("jobs.db*"):
        each.unlink()


def replaced(path: Path) -> None:
    """By a copy of its own, as of a backup that is put back."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


def folder_removed(path: Path) -> None:
    """It is elsewhere now."""
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("away", "told"),
    [(removed, "removed"), (replaced, "replaced"), (folder_removed, "removed")],
)
async def test_a_file_that_has_gone_takes_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, away: Callable[[Path], None], told: str
) -> None:
    """What is written to it would be lost; nor is another one made in its place."""
    path = tmp_path / "store" / "jobs.db"
    path.parent.mkdir()
    store = Place(path, None).store()
    await store.open()
    await store.add(new("1"))
    assert await store.record("1") is not None
    away(path)
    there = path.exists()
    with caplog.at_level(logging.ERROR):
        for number in range(2, 5):
            with pytest.raises(StoreFailed, match=f"has been {told}; restart the server") as failed:
                await store.add(new(str(number)))
            assert str(failed.value).count("store of async requests failed") == 1
        with pytest.raises(StoreFailed, match=f"has been {told}"):
            await store.record("1")
    assert path.exists() == there
    assert [each.getMessage().count(str(path)) for each in caplog.records] == [1]
    await store.aclose()
    assert path.exists() == there


async def test_a_file_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = Place(path, None).store()
    await store.open()
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreFailed, match="removed"):
        await store.add(new("1"))
    (tmp_path / "away.db").rename(path)
    await store.add(new("2"))
    await store.aclose()
    store = Place(path, None).store()
    await store.open()
    assert await store.record("1") is None
    assert await store.record("2") is not None
    await store.aclose()


async def test_a_service_whose_file_has_gone_accepts_nothing(tmp_path: Path) -> None:
    """And ends all the same."""
    async with running(job_config(tmp_path), Worker()) as jobs:
        fine = new_job()
        await jobs.service.submit(fine)
        await jobs.ended(fine.request_id)
        removed(tmp_path / "jobs.db")
        with pytest.raises(StoreFailed, match="restart the server"):
            await jobs.service.submit(new_job())
    assert not (tmp_path / "jobs.db").exists()


def foreign(path: Path, *statements: str) -> None:
    """Another program's database."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE own (a)",),
        ("PRAGMA user_version = 1",),
        ("PRAGMA application_id = 7",),
        ("PRAGMA journal_mode = WAL", "CREATE TABLE own (a)"),
        (f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 9999"),
    ],
    ids=["tables", "version", "id", "write-ahead", "newer"],
)
async def test_another_program_s_database_stays_as_it_is(
    tmp_path: Path, statements: tuple[str, ...]
) -> None:
    path = tmp_path / "other.db"
    foreign(path, *statements)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"another program|a newer server"):
        await Place(path, None).store().open()
    assert path.read_bytes() == before
    assert not (tmp_path / "other.db.lock").exists()


async def test_what_is_no_file_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A FIFO would hold the start up for ever."""
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    for path, told in ((pipe, "no regular file"), (folder, "a folder")):
        with pytest.raises(StoreUnavailable, match=f"it is {told}; name a file"):
            await Place(path, None).store().open()
    with pytest.raises(StoreUnavailable, match="it is no regular file"):
        await Place(Path(os.devnull), None).store().open()
    assert sorted(tmp_path.iterdir()) == before
    assert not Path(f"{os.devnull}.lock").exists()


async def test_a_refused_start_leaves_no_lock_of_its_own(tmp_path: Path) -> None:
    """But the one that was there, which may be another server's."""
    path = tmp_path / "notes.txt"
    path.write_text("no database, but a text that is long enough" * 100)
    lock = tmp_path / "notes.txt.lock"
    for there in (False, True):
        if there:
            lock.touch()
        with pytest.raises(StoreUnavailable, match="not a database"):
            await Place(path, None).store().open()
        assert lock.exists() == there


async def test_a_lock_of_another_server_stays(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    first = Place(path, None).store()
    await first.open()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="another server has it"):
            await Place(path, None).store().open()
    await first.aclose()
