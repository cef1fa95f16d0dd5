"""Real changes on the real file system, as they are told on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nerve.repository import watcher as module
from nerve.repository.watcher import Watcher

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="inotify is a part of Linux")


class Heard:
    """What a watcher told, and waiting for more of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Path, Path]] = []
        self._more = asyncio.Event()

    def __call__(self, root: Path, path: Path) -> None:
        assert path == root or root in path.parents
        self.told.append((root, path))
        self._more.set()

    @property
    def paths(self) -> set[Path]:
        return {path for _, path in self.told}

    async def until(self, done: Callable[[], object]) -> None:
        """Wait for events until `done`; it is asked after each."""
        async with asyncio.timeout(20):
            while not done():
                self._more.clear()
                await self._more.wait()

    async def of(self, *paths: Path) -> None:
        await self.until(lambda: self.paths.issuperset(paths))


@asynccontextmanager
async def watching(*roots: Path, well: bool = True) -> AsyncIterator[tuple[Watcher, Heard]]:
    before = set(threading.enumerate())
    heard = Heard()
    watcher = Watcher(asyncio.get_running_loop(), heard)
    try:
        assert await watcher.watch(roots) is well
        yield watcher, heard
    finally:
        await watcher.aclose()
    new = set(threading.enumerate()) - before  # other tests' libraries start some, too
    assert not [each.name for each in new if each.name.startswith("nerve-watch")]


def fresh(parent: Path, name: str = "repository") -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the watcher logged; asyncio may have found something slow."""
    return [record for record in caplog.records if record.name == module.__name__]


async def quiet(heard: Heard, root: Path) -> None:
    """Everything that happened so far has been told; then forget it."""
    mark = root / f".mark{time.monotonic_ns()}"
    mark.touch()
    await heard.of(mark)
    heard.told.clear()


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        pytest.param(lambda old: old.write_bytes(b"longer"), "m/1/old", id="written"),
        pytest.param(lambda old: old.chmod(0o600), "m/1/old", id="permissions"),
        pytest.param(lambda old: os.utime(old, (1, 1)), "m/1/old", id="touched"),
        pytest.param(lambda old: old.unlink(), "m/1/old", id="deleted"),
        pytest.param(lambda old: (old.parent / "new").touch(), "m/1/new", id="made"),
        pytest.param(lambda old: old.rename(old.parent / "new"), "m/1/old", id="moved from"),
        pytest.param(lambda old: old.rename(old.parent / "new"), "m/1/new", id="moved to"),
        pytest.param(lambda old: old.replace(old.parent / "two"), "m/1/two", id="replaced"),
        pytest.param(lambda old: (old.parent / "link").symlink_to(old), "m/1/link", id="linked"),
        pytest.param(lambda old: shutil.rmtree(old.parent), "m/1", id="folder deleted"),
        pytest.param(lambda old: old.parent.rename(old.parents[1] / "2"), "m/2", id="folder moved"),
        pytest.param(lambda old: old.parent.chmod(0o700), "m/1", id="folder permissions"),
    ],
)
async def test_what_is_told(tmp_path: Path, change: Callable[[Path], object], changed: str) -> None:
    root = fresh(tmp_path)
    old = root / "m" / "1" / "old"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    (old.parent / "two").write_bytes(b"two")
    async with watching(root) as (watcher, heard):
        change(old)
        await heard.of(root / changed)
        assert heard.told[0][0] == root
        assert watcher.broken == frozenset()


async def test_reading_is_not_told(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    (root / "file").write_bytes(b"content")
    async with watching(root) as (_, heard):
        for _ in range(3):
            (root / "file").read_bytes()
            list(root.iterdir())
        (root / "end").touch()
        await heard.of(root / "end")
        assert heard.paths == {root / "end"}


async def test_folders_that_are_made_and_filled_at_once(tmp_path: Path) -> None:
    """They are told, and so are later changes deep in them."""
    root = fresh(tmp_path)
    files = [root / f"m{m}" / f"{v}" / "onnx" / "file" for m in range(20) for v in (1, 2)]
    async with watching(root) as (_, heard):
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"1")
        await heard.of(*(file.parents[2] for file in files))
        await quiet(heard, root)
        for file in files:
            file.write_bytes(b"22")
        await heard.of(*files)


async def test_a_folder_moved_in_from_elsewhere_is_watched(tmp_path: Path) -> None:
    """`mv` of a prepared model; then an edit in it."""
    root = fresh(tmp_path)
    prepared = fresh(tmp_path, "prepared")
    deep = prepared / "1" / "onnx"
    deep.mkdir(parents=True)
    (deep / "model.onnx").write_bytes(b"1")
    async with watching(root) as (_, heard):
        prepared.rename(root / "m")
        await heard.of(root / "m")
        await quiet(heard, root)
        (root / "m" / "1" / "onnx" / "model.onnx").write_bytes(b"22")
        await heard.of(root / "m" / "1" / "onnx" / "model.onnx")


async def test_a_model_is_replaced_and_both_are_removed(tmp_path: Path) -> None:
    """The old one moved to a backup, a new one in its place, then both deleted."""
    root = fresh(tmp_path)
    model, backup = root / "m" / "1", tmp_path / "backup"
    model.mkdir(parents=True)
    async with watching(root) as (_, heard):
        model.parent.rename(backup)
        model.mkdir(parents=True)
        await quiet(heard, root)
        shutil.rmtree(model.parent)
        shutil.rmtree(backup)
        await quiet(heard, root)
        model.mkdir(parents=True)
        await quiet(heard, root)
        (model / "file").touch()
        await heard.of(model / "file")


async def test_churn(tmp_path: Path) -> None:
    """Folders made, filled, moved in, out and about, removed: after a poll, what is left is watched."""
    root, outside = fresh(tmp_path), fresh(tmp_path, "outside")

    def churn(seed: int) -> None:
        chance = random.Random(seed)
        for step in range(300):
            model = root / f"m{chance.randrange(6)}"
            other = root / f"m{chance.randrange(6)}"
            kept = outside / f"{seed}-{chance.randrange(6)}"
            with contextlib.suppress(OSError):
                match step % 5:
                    case 0:
                        (model / "1" / "onnx").mkdir(parents=True, exist_ok=True)
                        (model / "1" / "onnx" / "file").write_bytes(b"x")
                    case 1:
                        shutil.rmtree(model, ignore_errors=True)
                    case 2:
                        model.rename(other)
                    case 3:
                        model.rename(kept)
                    case _:
                        kept.rename(model)

    async with watching(root) as (watcher, heard):
        await asyncio.gather(*(asyncio.to_thread(churn, seed) for seed in range(3)))
        await quiet(heard, root)
        assert await watcher.watch([root])  # in such a storm, the library may forget a folder
        (root / "deep" / "1" / "onnx").mkdir(parents=True)
        await quiet(heard, root)
        probes = [Path(folder) / "probe" for folder, _, _ in os.walk(root)]
        for probe in probes:
            probe.touch()
        await heard.of(*probes)
        assert watcher.broken == frozenset()


async def test_a_folder_exchanged_for_another(tmp_path: Path) -> None:
    """Away with the old one, in with the new one, and an edit in that."""
    root = fresh(tmp_path)
    (fresh(root, "m") / "file").touch()
    (fresh(tmp_path, "next") / "file").touch()
    async with watching(root) as (_, heard):
        (root / "m").rename(tmp_path / "last")
        (tmp_path / "next").rename(root / "m")
        await heard.of(root / "m")
        await quiet(heard, root)
        (root / "m" / "file").write_bytes(b"22")
        await heard.of(root / "m" / "file")


async def test_the_flip_of_a_kubernetes_volume(tmp_path: Path) -> None:
    """`..data` is a link that is replaced by a rename; nothing else in the tree changes."""
    root = fresh(tmp_path)
    for name in ("..1", "..2"):
        (fresh(root, name) / "m").mkdir()
        (root / name / "m" / "model.onnx").write_text(name)
    (root / "..data").symlink_to("..1")
    (root / "m").symlink_to("..data/m")
    async with watching(root) as (watcher, heard):
        (root / "..data_tmp").symlink_to("..2")
        (root / "..data_tmp").rename(root / "..data")
        await heard.of(root / "..data")
        assert watcher.broken == frozenset()


async def test_a_root_that_is_removed_and_made_again(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    (root / "m").mkdir()
    async with watching(root) as (watcher, heard):
        shutil.rmtree(root)
        await heard.of(root)
        assert watcher.broken == {root}
        assert await watcher.watch([root]) is False
        assert watcher.broken == {root}
        root.mkdir()
        assert await watcher.watch([root]) is True
        assert watcher.broken == frozenset()
        (root / "new").touch()
        await heard.of(root / "new")


@pytest.mark.parametrize("linked", [False, True])
async def test_a_root_that_is_replaced(tmp_path: Path, linked: bool) -> None:
    """By another folder of that name, or by turning the link that it is: the next poll notices."""
    for name in ("a", "b"):
        fresh(tmp_path, name)
    root = tmp_path / "repository"
    if linked:
        root.symlink_to("a")
    else:
        (tmp_path / "a").rename(root)
    async with watching(root) as (watcher, heard):
        if linked:
            (tmp_path / "turned").symlink_to("b")
            (tmp_path / "turned").rename(root)
        else:
            root.rename(tmp_path / "a")
            (tmp_path / "b").rename(root)
        assert await watcher.watch([root])
        await quiet(heard, root)
        (root / "new").touch()
        await heard.of(root / "new")
        heard.told.clear()
        (tmp_path / "a" / "old").touch()
        await quiet(heard, root)
        assert not heard.paths


async def test_a_link_on_the_way_to_a_root(tmp_path: Path) -> None:
    """`current/models`, where `current` is a link to a release."""
    for name in ("1", "2"):
        (fresh(tmp_path, name) / "models").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "1")
    root = tmp_path / "current" / "models"
    async with watching(root) as (watcher, heard):
        (root / "file").touch()
        await heard.of(root / "file")
        (tmp_path / "turned").symlink_to("2")
        (tmp_path / "turned").rename(tmp_path / "current")
        assert await watcher.watch([root])
        (root / "other").touch()
        await heard.of(root / "other")


async def test_a_root_that_is_not_there_yet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, and watched by the poll after it came; the other root does not mind."""
    missing, other = tmp_path / "missing", fresh(tmp_path, "other")
    caplog.set_level(logging.INFO, logger=module.__name__)
    async with watching(missing, other, well=False) as (watcher, heard):
        assert await watcher.watch([missing, other]) is False
        assert watcher.broken == {missing}
        (record,) = records(caplog)
        assert record.levelname == "WARNING"
        assert record.getMessage().endswith(f"{missing}: there is no such folder")
        (other / "file").touch()
        await heard.of(other / "file")
        missing.mkdir()
        assert await watcher.watch([missing, other])
        assert records(caplog)[-1].getMessage() == f"repository is watched again: {missing}"
        (missing / "file").touch()
        await heard.of(missing / "file")


@pytest.mark.parametrize("kind", ["file", "loop", "under a file", "no parent", "too long"])
async def test_roots_that_cannot_be_watched(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    names = {"under a file": "file/root", "no parent": "none/root", "too long": "x" * 300}
    async with watching(tmp_path / names.get(kind, kind), well=False) as (watcher, _):
        assert len(watcher.broken) == 1


async def test_roots_in_roots_and_roots_that_come_and_go(tmp_path: Path) -> None:
    outer = fresh(tmp_path)
    inner = fresh(outer, "m")
    async with watching(outer, inner) as (watcher, heard):
        (inner / "file").touch()
        await heard.until(lambda: {root for root, _ in heard.told} == {outer, inner})
        assert heard.paths == {inner / "file"}
        await watcher.watch([outer])
        await quiet(heard, outer)
        (inner / "file").write_bytes(b"2")
        await heard.of(inner / "file")
        await quiet(heard, outer)
        assert {root for root, _ in heard.told} <= {outer}


async def test_a_flood_is_told_as_one_change_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the loop is busy, what waits for it does not grow without bounds."""
    monkeypatch.setattr(module, "_MAX_PATHS", 10)
    root = fresh(tmp_path)
    async with watching(root) as (watcher, heard):
        for number in range(20):
            (root / f"f{number}").touch()
        deadline = time.monotonic() + 20
        # No await, so the loop stands still until the thread has seen all of it.
        while watcher._changed.get(root) != {root} and time.monotonic() < deadline:
            time.sleep(0.001)
        await heard.of(root)
        assert heard.told == [(root, root)]
        assert watcher.broken == {root}
        assert await watcher.watch([root])
        assert watcher.broken == frozenset()
        (root / "new").touch()
        await heard.of(root / "new")


async def test_a_watch_that_ends_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At a name that the library cannot decode. Told, not raised, and begun anew."""
    caplog.set_level(logging.INFO, logger=module.__name__)
    root = fresh(tmp_path)
    bad = os.fsencode(root) + b"/\xff"
    try:
        Path(os.fsdecode(bad)).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    async with watching(root) as (watcher, heard):
        os.utime(bad, (1, 1))
        await heard.of(root)
        assert watcher.broken == {root}
        (record,) = records(caplog)
        assert record.levelname == "WARNING"
        assert "Unable to decode path" in record.getMessage()
        assert await watcher.watch([root]) is True
        assert watcher.broken == frozenset()
        assert records(caplog)[-1].getMessage() == f"repository is watched again: {root}"
        (root / "new").touch()
        await heard.of(root / "new")


class Panic(BaseException):
    """What a fault within the library looks like."""


async def test_a_fault_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def panic(*_: object) -> None:
        raise Panic("inside")

    with monkeypatch.context() as patch:
        patch.setattr(module, "RustNotify", panic)
        async with watching(tmp_path, well=False) as (watcher, _):
            assert watcher.broken == {tmp_path}
    assert [record.getMessage().endswith("inside") for record in records(caplog)] == [True]


async def test_a_folder_whose_link_is_removed(tmp_path: Path) -> None:
    """The library watches it no more, as it may happen to others: the next poll sees to it."""
    root = fresh(tmp_path)
    (root / "1").mkdir()
    (root / "latest").symlink_to("1")
    async with watching(root) as (watcher, heard):
        (root / "latest").unlink()
        await quiet(heard, root)
        assert await watcher.watch([root])
        (root / "1" / "file").touch()
        await heard.of(root / "1" / "file")


async def test_only_a_watch_that_told_something_is_begun_anew(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    async with watching(root) as (watcher, heard):
        watch = watcher._watches[root]
        assert await watcher.watch([root])
        assert watcher._watches[root] is watch
        (root / "file").touch()
        await heard.of(root / "file")
        assert await watcher.watch([root])
        assert watcher._watches[root] is not watch


async def test_a_repository_under_git(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    (root / ".git" / "objects").mkdir(parents=True)
    async with watching(root) as (_, heard):
        (root / ".git" / "objects" / "x").touch()
        (root / ".git" / "index").touch()
        (root / ".gitattributes").touch()
        await heard.of(root / ".gitattributes")
        assert heard.paths == {root / ".gitattributes"}


async def test_a_folder_that_may_not_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library watches all of a tree or nothing; the message names the folder."""
    (closed := fresh(tmp_path, "lost+found")).chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("we may read everything")
    async with watching(tmp_path, well=False) as (watcher, _):
        (record,) = records(caplog)
        assert str(closed) in record.getMessage()
        closed.chmod(0o700)
        assert await watcher.watch([tmp_path])


@LINUX
async def test_no_more_instances(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process may not open another file: told, not raised, and tried again."""
    root = fresh(tmp_path)
    watcher = Watcher(asyncio.get_running_loop(), Heard())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert await watcher.watch([root]) is False
        assert await watcher.watch([root]) is False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    (record,) = records(caplog)
    assert "fs.inotify.max_user_instances" in record.getMessage()
    assert watcher.broken == {root}
    assert await watcher.watch([root]) is True
    await watcher.aclose()


LIMITED = """
import asyncio, sys
from pathlib import Path
from nerve.repository.watcher import Watcher

async def main() -> None:
    root, told = Path(sys.argv[1]), asyncio.Event()
    watcher = Watcher(asyncio.get_running_loop(), lambda root, path: told.set())
    assert not await watcher.watch([root])
    limit = Path("/proc/sys/user/max_inotify_watches")
    limit.write_text("100")
    assert await watcher.watch([root])
    limit.write_text("1")
    (root / "new").mkdir()
    await told.wait()
    assert not await watcher.watch([root])
    await watcher.aclose()

asyncio.run(main())
"""


@LINUX
@pytest.mark.parametrize("limit", [0, 1, 5])
def test_no_more_watches(tmp_path: Path, limit: int) -> None:
    """The kernel's limit, in a namespace of our own; reached at once, deep in the tree, or later."""
    for number in range(10):
        (tmp_path / f"m{number}" / "1").mkdir(parents=True)
    script = f'echo {limit} > /proc/sys/user/max_inotify_watches && exec $0 -c "$1" $2'
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives out no user namespaces")
    done = subprocess.run(
        [*namespace, "sh", "-c", script, sys.executable, LIMITED, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr.count("fs.inotify.max_user_watches") == 2


async def test_idle_costs_next_to_nothing(tmp_path: Path) -> None:
    async with watching(fresh(tmp_path)):
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.02


@pytest.mark.parametrize("closed", [True, False])
def test_the_end_of_the_process(tmp_path: Path, closed: bool) -> None:
    """It is not held up, and does not crash, whether the watcher has been closed or not."""
    subprocess.run(
        [sys.executable, "-c", AT_THE_END, tmp_path, str(closed)], check=True, timeout=30
    )


AT_THE_END = """
import asyncio, sys
from pathlib import Path
from nerve.repository.watcher import Watcher

async def main() -> None:
    watcher = Watcher(asyncio.get_running_loop(), lambda root, path: None)
    assert await watcher.watch([Path(sys.argv[1])])
    if sys.argv[2] == "True":
        await watcher.aclose()

asyncio.run(main())
"""


async def test_closing_twice_and_watching_after(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    async with watching(root) as (watcher, heard):
        await watcher.aclose()
        await watcher.watch([root])
        (root / "file").touch()
    assert not heard.told
