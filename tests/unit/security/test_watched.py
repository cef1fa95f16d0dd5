"""Changed files are noticed: rewritten, replaced, and behind a link that is swapped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from nerve.security.watched import signature, watch


def rewrite(folder: Path) -> None:
    (folder / "key").write_text("new!")


def replace(folder: Path) -> None:
    (folder / "next").write_text("old")
    (folder / "next").replace(folder / "key")


def remove(folder: Path) -> None:
    (folder / "key").unlink()


def swap(folder: Path) -> None:
    """As Kubernetes changes a mounted Secret."""
    (folder / "v2").mkdir()
    (folder / "v2" / "key").write_text("old")
    (folder / "..data_tmp").symlink_to("v2")
    (folder / "..data_tmp").replace(folder / "..data")


@pytest.mark.parametrize("change", [rewrite, replace, remove, swap])
async def test_a_change_is_noticed_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    if change is swap:
        (tmp_path / "v1").mkdir()
        (tmp_path / "v1" / "key").write_text("old")
        (tmp_path / "..data").symlink_to("v1")
        (tmp_path / "key").symlink_to("..data/key")
    else:
        (tmp_path / "key").write_text("old")
    paths = [tmp_path / "key", tmp_path / "not there"]
    seen, changed = signature(paths), asyncio.Event()
    calls = 0

    async def note() -> None:
        nonlocal calls
        calls += 1
        changed.set()

    task = asyncio.create_task(watch(paths, seen, note, look_s=0.01))
    try:
        await asyncio.to_thread(change, tmp_path)
        async with asyncio.timeout(20):
            await changed.wait()
        again = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, again.set)
        await again.wait()
        assert calls == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "key"
    nothing = signature([path])
    assert signature([path]) == nothing
    path.write_text("x")
    there = signature([path])
    assert there != nothing
    assert signature([path]) == there
