"""Runtimes: which files are some, and how they are kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from nerve.building.faults import BuildFailed
from nerve.building.payload import footer
from nerve.building.runtime import (
    KEPT,
    cache_lock,
    cached_runtime,
    default_cache,
    host_target,
    keep_runtime,
    read_runtime,
    runtime_key,
)
from unit.building.conftest import LOADER, MakeRuntime


def test_a_runtime_tells_what_it_is(make_runtime: MakeRuntime) -> None:
    runtime = read_runtime(make_runtime())
    assert runtime.archive == len(LOADER)
    assert runtime.info["target"] == host_target()


def test_what_is_no_runtime(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    path = make_runtime()
    content = path.read_bytes()
    cases = {
        b"": "is no runtime of Nerve; without --base-binary-path",
        b"\x7fELF" * 100: "is no runtime of Nerve",
        content[:-1]: "is no runtime of Nerve",
        content + footer(0, 8): "has a model in it already",
        content[-88:]: "cut short",
        make_runtime("other", info=False).read_bytes(): "but no runtime of Nerve",
    }
    for wrong, words in cases.items():
        path.write_bytes(wrong)
        with pytest.raises(BuildFailed, match=words):
            read_runtime(path)
    with pytest.raises(BuildFailed, match="cannot be read: No such file"):
        read_runtime(tmp_path / "none")


def test_a_damaged_table_is_no_crash(make_runtime: MakeRuntime) -> None:
    path = make_runtime()
    content = path.read_bytes()
    for place in range(len(content) - 88 - 120, len(content) - 88):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with contextlib.suppress(BuildFailed):
            read_runtime(path)


def test_what_was_made_is_kept_and_found_again(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert cached_runtime(cache, "k") is None
    (cache / "runtimes" / "making-x" / "y").mkdir(parents=True)  # of one that was killed
    with cache_lock(cache):
        kept = keep_runtime(cache, "k", make_runtime())
    assert not (cache / "runtimes" / "making-x").exists()
    assert os.access(kept.path, os.X_OK)
    assert cached_runtime(cache, "k") == kept
    assert cached_runtime(cache, "other") is None
    kept.path.write_bytes(b"damaged")
    assert cached_runtime(cache, "k") is None  # and is made anew


def test_those_used_last_stay(make_runtime: MakeRuntime, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with cache_lock(cache):
        for number in range(KEPT + 1):
            made = keep_runtime(cache, str(number), make_runtime())
            os.utime(made.path, (number, number))
            assert cached_runtime(cache, "0") is not None  # which is a use
    left = {path.name for path in (cache / "runtimes").glob("runtime-*")}
    assert left == {f"runtime-{number}" for number in (0, 2, 3)}


def test_only_one_makes_a_runtime_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with cache_lock(tmp_path):
            order.append("second")

    with cache_lock(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        other.join(timeout=0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BuildFailed, match="name another folder: --cache-dir"),
        cache_lock(tmp_path / "file"),
    ):
        pass


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/nerve")
    assert default_cache({"XDG_CACHE_HOME": "relative"}) == tmp_path / ".cache" / "nerve"
    assert default_cache({}) == tmp_path / ".cache" / "nerve"


def test_the_key_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same for the same code, another one for a line more; what is compiled says nothing."""
    package = tmp_path / "nerve"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    monkeypatch.setattr("nerve.building.runtime._PACKAGE", package)
    key = runtime_key()
    (package / "a.pyc").write_bytes(b"compiled")
    assert runtime_key() == key
    (package / "a.py").write_text("x = 2\n")
    assert runtime_key() != key
    shutil.move(package / "a.py", package / "b.py")
    assert runtime_key() != key
