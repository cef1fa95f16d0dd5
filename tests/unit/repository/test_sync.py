"""From real folders to what serves: each change is followed once, when it is whole, and not before."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fake_models import PATIENCE_S, FakeOpener, World, until
from model_folders import DATA, DATA_BYTES, graph_bytes, place, word_of, write_model
from nerve.config.server import ServerConfig
from nerve.config.settings.repositories import ControlMode
from nerve.errors import (
    ConfigInvalid,
    LoadFailed,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    RepositoryInvalid,
    ServerStopping,
)
from nerve.repository.fingerprint import Digests
from nerve.repository.lifecycle import State
from nerve.repository.sync import RepositorySync, shared

READY, UNAVAILABLE = State.READY, State.UNAVAILABLE
NEVER_S = 3600.0


class Synced(World):
    """A manager that follows folders."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(opener=FakeOpener(word_of), default_model=config.default_model)
        self.sync = RepositorySync(self.manager, self.catalog, config=config)

    def reason(self, name: str, number: int = 1) -> str:
        """Of a version; empty if there is none."""
        return self.rows().get((name, number), (None, ""))[1]

    def serves(self, name: str, word: str) -> bool:
        """Whether this is what answers."""
        try:
            return self.answering(name) == word
        except (ModelNotReady, ModelNotFound):
            return False

    async def followed(self, repository: Path) -> None:
        """Wait until everything that was done before has been noticed and followed.

        A model is put there, which settles no sooner, and taken away again.
        """
        folder = write_model(repository / "zzz-last", v1="last")
        await until(lambda: self.serves("zzz-last", "last"))
        shutil.rmtree(folder)
        await until(lambda: "zzz-last" not in self.catalog.entries)
        await until(lambda: not self.sync._jobs)


@asynccontextmanager
async def synced(
    *repositories: Path,
    mode: ControlMode = ControlMode.POLL,
    poll_s: float = 0.02,
    settle_s: float = 0.05,
    start: bool = True,
    **settings: Any,
) -> AsyncIterator[Synced]:
    """Everything found, loaded and, with `start`, followed; in the end all of it closed."""
    given: dict[str, object] = {
        "repositories": list(repositories),
        "model_control_mode": mode,
        "repository_poll_seconds": poll_s,
        "settle_seconds": min(settle_s, 0.05),  # the start waits for it, too
        **settings,
    }
    made = Synced(ServerConfig.model_validate(given))
    try:
        if start:
            await made.sync.find()
            await made.sync.load_all()
            made.sync._settling._settle_s = settle_s
            made.sync.start()
        yield made
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await made.sync.aclose()
        await made.aclose()


# --- the start ---


async def test_everything_that_is_there_is_loaded(tmp_path: Path) -> None:
    """What cannot be is told to the caller, and stops nothing."""
    write_model(tmp_path / "a", v1="x")
    write_model(tmp_path / "b", v1="bad")
    write_model(tmp_path / "c", "max_batch: 1", v1="y")
    async with synced(tmp_path, start=False) as made:
        made.opener.failures["bad"] = ModelLoadFailed("broken")
        await made.sync.find()
        assert {key: row[0] for key, row in made.rows().items()} == {
            (name, 0): State.LOADING for name in "abc"
        }
        causes = await made.sync.load_all()
        assert sorted(causes) == ["b", "c"]
        assert causes["b"] == [(1, "broken")]
        assert causes["c"][0][1].startswith("config.yaml: line 1: max_batch")
        assert made.answering("a") == "x"
        assert made.catalog.ready


async def test_an_empty_repository_is_ready(tmp_path: Path) -> None:
    async with synced(tmp_path) as made:
        assert made.catalog.ready
        write_model(tmp_path / "a", v1="x")
        await until(lambda: made.serves("a", "x"))


async def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    async with synced(tmp_path, tmp_path / "gone", start=False) as made:
        with pytest.raises(RepositoryInvalid, match="gone"):
            await made.sync.find()


async def test_one_repository_given_twice_is_one(tmp_path: Path) -> None:
    """By another way, too."""
    root = tmp_path / "one"
    write_model(root / "ner", v1="x")
    (tmp_path / "link").symlink_to(root)
    async with synced(root, root, tmp_path / "link", root / ".." / "one") as made:
        assert made.rows() == {("ner", 1): (READY, "")}


async def test_a_name_in_two_repositories_is_served_by_neither(tmp_path: Path) -> None:
    """The reason names both; other models of both are served."""
    one, two = tmp_path / "one", tmp_path / "two"
    for root, other in ((one, "a"), (two, "b")):
        write_model(root / "ner", v1="x")
        write_model(root / other, v1=other)
    async with synced(one, two) as made:
        state, reason = made.rows()["ner", 0]
        assert state is UNAVAILABLE
        assert "(one, two)" in reason
        assert str(tmp_path) not in reason  # clients see it
        assert sorted(made.opener.contents) == ["a", "b"]
        with pytest.raises(ModelNotReady, match="several repositories"):
            made.answering("ner")


@pytest.mark.parametrize("request_is", ["index", "load"])
async def test_what_comes_while_the_start_loads_is_not_passed_over(
    tmp_path: Path, request_is: str
) -> None:
    """Although somebody had the disk looked at meanwhile."""
    write_model(tmp_path / "a", v1="slow")
    async with synced(tmp_path, start=False) as made:
        gate = made.opener.hold("slow")
        await made.sync.find()
        loading = asyncio.create_task(made.sync.load_all())
        await made.opener.has_begun("slow")
        write_model(tmp_path / "b", v1="x")
        write_model(tmp_path / "a", v1="changed")
        if request_is == "load":
            write_model(tmp_path / "c", v1="asked for")
            await made.sync.load("c")
        else:
            await made.sync.refresh()
        gate.set()
        await loading
        made.sync.start()
        await until(lambda: made.serves("b", "x"))
        await until(lambda: made.serves("a", "changed"))


# --- changes ---


@pytest.mark.parametrize("mode", [ControlMode.POLL, ControlMode.WATCH])
async def test_changes_are_followed(tmp_path: Path, mode: ControlMode) -> None:
    """A model comes, changes, gets a version, gets a config, loses a version, goes."""
    write_model(tmp_path / "a", v1="x")
    poll_s = NEVER_S if mode is ControlMode.WATCH else 0.02
    async with synced(tmp_path, mode=mode, poll_s=poll_s) as made:
        write_model(tmp_path / "b", v1="one")
        await until(lambda: made.serves("b", "one"))
        write_model(tmp_path / "b", v1="changed")
        await until(lambda: made.serves("b", "changed"))
        write_model(tmp_path / "b", v2="two")
        await until(lambda: made.serves("b", "two"))
        write_model(tmp_path / "b", "version_policy: {specific: {versions: [1]}}")
        await until(lambda: made.serves("b", "changed"))
        write_model(tmp_path / "b", "version_policy: all")
        await until(lambda: made.serves("b", "two"))
        shutil.rmtree(tmp_path / "b" / "2")
        await until(lambda: made.serves("b", "changed") and ("b", 2) not in made.rows())
        (tmp_path / "b").rename(tmp_path / "c")
        await until(lambda: made.serves("c", "changed") and "b" not in made.catalog.entries)
        assert made.opener.begun.count("x") == 1


async def test_a_touch_reloads_nothing(tmp_path: Path) -> None:
    """Nor does a file that does not count, or the same bytes in a new file."""
    folder = write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        (folder / "1" / "model.onnx").touch()
        (folder / "README.md").write_text("hello")
        await made.followed(tmp_path)
        place(folder / "1" / "model.onnx", graph_bytes("x"))
        await made.followed(tmp_path)
        assert made.opener.begun.count("x") == 1


async def test_an_edit_that_keeps_size_and_time_is_noticed(tmp_path: Path) -> None:
    """In place, the same inode."""
    graph = write_model(tmp_path / "a", v1="xxxx") / "1" / "model.onnx"
    os.utime(graph, ns=(10**18, 10**18))
    async with synced(tmp_path) as made:
        with graph.open("r+b") as file:
            file.write(graph_bytes("yyyy"))
        os.utime(graph, ns=(10**18, 10**18))
        await until(lambda: made.serves("a", "yyyy"))


async def test_a_model_that_comes_in_pieces_is_loaded_once_when_it_is_whole(tmp_path: Path) -> None:
    """However long it lies there in between; why it is not loaded yet is told."""
    folder = tmp_path / "a" / "1"
    graph = graph_bytes("whole", external=True)
    async with synced(tmp_path, settle_s=0.01) as made:
        folder.mkdir(parents=True)
        with (folder / "model.onnx").open("wb") as file:
            file.write(graph[:-3])
            file.flush()
            await until(lambda: made.reason("a"))
            file.write(graph[-3:])
        await until(lambda: f"waits for {DATA}" in made.reason("a"))
        with (folder / DATA).open("wb") as file:
            file.write(bytes(DATA_BYTES // 2))
            file.flush()
            await until(lambda: "incomplete" in made.reason("a"))
            file.write(bytes(DATA_BYTES // 2))
        await until(lambda: made.serves("a", "whole"))
        await made.followed(tmp_path)
        assert made.opener.begun.count("whole") == 1
        assert made.stale("a") == 0


async def test_nothing_is_loaded_as_long_as_it_changes(tmp_path: Path) -> None:
    """A folder that is written to all the time; another one beside it is loaded meanwhile."""
    async with synced(tmp_path, settle_s=0.3) as made:
        for number in range(10_000):
            write_model(tmp_path / "a", v1=f"x{number}")
            if number == 1:
                write_model(tmp_path / "b", v1="y")
            await asyncio.sleep(0.002)
            if made.serves("b", "y"):
                break
        assert made.opener.contents == ["y"]
        await until(lambda: made.serves("a", f"x{number}"))
        assert made.opener.contents == ["y", f"x{number}"]


async def test_a_volume_whose_link_is_flipped(tmp_path: Path) -> None:
    """As Kubernetes does it: the model's files lie behind `..data`."""
    for revision in ("one", "two"):
        write_model(tmp_path / "a" / f"..{revision}", v1=revision)
    (tmp_path / "a" / "..data").symlink_to("..one")
    (tmp_path / "a" / "1").symlink_to("..data/1")
    async with synced(tmp_path, mode=ControlMode.WATCH, poll_s=NEVER_S) as made:
        assert made.answering("a") == "one"
        (tmp_path / "a" / "..new").symlink_to("..two")
        (tmp_path / "a" / "..new").rename(tmp_path / "a" / "..data")
        await until(lambda: made.serves("a", "two"))


async def test_a_broken_change_is_told_and_mended(tmp_path: Path) -> None:
    """A random file in the place of the graph, a broken config; what served goes on."""
    folder = write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        place(folder / "1" / "model.onnx", b"\x00random")
        await until(lambda: made.reason("a"))
        assert made.rows()["a", 1][0] is READY
        place(folder / "config.yaml", b"max_batch: 3")
        await until(lambda: "unknown key" in made.reason("a"))
        assert "no ONNX" in made.reason("a")  # one fault does not hide the other
        assert made.answering("a") == "x"
        assert made.stale("a") == 1
        write_model(folder, "max_batch_size: 3", v1="y")
        await until(lambda: made.serves("a", "y"))
        await until(lambda: not made.reason("a"))
        assert made.stale("a") == 0


async def test_what_failed_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes: memory was short, the device was busy."""
    monkeypatch.setattr("nerve.repository.records.RETRY_FIRST_S", 0.05)
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path, start=False) as made:
        made.opener.failures["x"] = ModelLoadFailed("out of memory")
        await made.sync.find()
        await made.sync.load_all()
        made.sync.start()
        await made.opener.has_begun("x", 2)
        made.opener.failures.clear()
        await until(lambda: made.serves("a", "x"))


async def test_a_retry_takes_nothing_that_has_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes due in the middle of a copy: half of the new files would be served."""
    monkeypatch.setattr("nerve.repository.records.RETRY_FIRST_S", 0.0)
    folder = write_model(tmp_path / "a", v1="bad")
    async with synced(tmp_path, start=False) as made:
        made.opener.failures["bad"] = ModelLoadFailed("out of memory")
        await made.sync.find()
        await made.sync.load_all()
        made.sync._settling._settle_s = 3600.0
        write_model(folder, v1="half")
        for _ in range(3):
            await made.sync._step()
            await until(lambda: not made.sync._jobs)
        assert made.opener.begun == ["bad"]


async def test_what_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody touches the files any more: a handle was lacking, a network disk had a bad moment."""
    monkeypatch.setattr("nerve.repository.sync.TRY_AGAIN_S", 0.05)
    folder = write_model(tmp_path / "a", v1="x")
    real, faults = Digests.digest, [OSError(24, "Too many open files")]

    def digest(self: Digests, path: Path) -> str:
        if b"y" in path.read_bytes() and path.name == "model.onnx" and faults:
            raise faults.pop()
        return real(self, path)

    async with synced(tmp_path) as made:
        monkeypatch.setattr(Digests, "digest", digest)
        write_model(folder, v1="y")
        await until(lambda: made.serves("a", "y"))
    assert not faults


async def test_a_repository_that_is_not_mounted_is_not_empty(tmp_path: Path) -> None:
    """What is left of a volume is an empty folder on another file system."""
    root = tmp_path / "models"
    write_model(root / "a", v1="x")
    async with synced(root) as made:
        made.sync._devices[root] = -1
        shutil.rmtree(root / "a")
        await until(lambda: made.sync._unreadable)
        assert "mounted" in made.sync._unreadable[root]
        assert made.answering("a") == "x"


async def test_tries_do_not_pile_up_behind_a_slow_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another version of the same model: it holds up what is due, once."""
    monkeypatch.setattr("nerve.repository.records.RETRY_FIRST_S", 0.0)
    folder = write_model(tmp_path / "a", "version_policy: all", v1="bad")
    async with synced(tmp_path, start=False) as made:
        made.opener.failures["bad"] = ModelLoadFailed("out of memory")
        gate = made.opener.hold("slow")
        await made.sync.find()
        await made.sync.load_all()
        made.sync.start()
        write_model(folder, v2="slow")
        await made.opener.has_begun("slow")
        tried = made.opener.begun.count("bad")
        await until(lambda: made.catalog.model("a").loads.keys() == {2})
        for number in range(3):
            write_model(tmp_path / "b", v1=f"y{number}")
            await until(partial(made.serves, "b", f"y{number}"))
        gate.set()
        await until(lambda: made.serves("a", "slow"))
        assert made.opener.begun.count("bad") <= tried + 2


async def test_the_last_version_serves_on_when_its_folder_is_gone(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        shutil.rmtree(folder / "1")
        await until(lambda: "no model.onnx found" in made.reason("a"))
        assert made.answering("a") == "x"


@pytest.mark.parametrize("flat", [True, False])
async def test_a_repository_that_is_one_model_serves_on_when_its_graph_is_gone(
    tmp_path: Path, flat: bool
) -> None:
    """As any other model does; and is followed when the graph is back."""
    root = tmp_path / "export"
    graph = root / "model.onnx" if flat else root / "1" / "model.onnx"
    place(graph, graph_bytes("x"))
    place(root / "tokenizer.json", b"{}")
    async with synced(root) as made:
        assert made.answering("export") == "x"
        graph.unlink()
        await until(lambda: made.reason("export") or "export" not in made.catalog.entries)
        assert made.answering("export") == "x"
        place(graph, graph_bytes("y"))
        await until(lambda: made.serves("export", "y"))


async def test_a_model_whose_folder_is_gone_is_unknown(tmp_path: Path) -> None:
    """And freed when its last user has gone."""
    folder = write_model(tmp_path / "a", v1="x")
    write_model(tmp_path / "b", v1="y")
    async with synced(tmp_path) as made:
        with made.catalog.lease("a", None):
            shutil.rmtree(folder)
            await until(lambda: "a" not in made.catalog.entries)
            assert not made.model("x").closed
        await until(lambda: made.model("x").closed)
        assert made.answering("b") == made.answering() == "y"


async def test_a_name_that_comes_up_twice_keeps_what_serves(tmp_path: Path) -> None:
    """Until one of them goes; nothing is loaded anew."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_model(one / "a", v1="x")
    two.mkdir()
    async with synced(one, two) as made:
        write_model(two / "a", v1="x")
        await until(lambda: "several repositories (one, two)" in made.reason("a"))
        assert made.answering("a") == "x"
        shutil.rmtree(one / "a")
        await until(lambda: not made.reason("a"))
        assert made.opener.contents == ["x"]


async def test_a_repository_that_vanishes_keeps_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unmounted volume; when it is back, it is followed again."""
    one, two = tmp_path / "one", tmp_path / "two"
    write_model(one / "a", v1="x")
    write_model(two / "b", v1="y")
    async with synced(one, two) as made:
        one.rename(tmp_path / "away")
        await until(lambda: "what was loaded from it goes on" in caplog.text)
        await made.followed(two)
        assert made.answering("a") == "x"
        assert caplog.text.count("what was loaded from it goes on") == 1
        write_model(tmp_path / "away" / "a", v1="changed")
        (tmp_path / "away").rename(one)
        await until(lambda: made.serves("a", "changed"))
        assert made.opener.begun.count("x") == 1


# --- requests ---


async def test_unloaded_by_request_stays_so_although_files_change(tmp_path: Path) -> None:
    """Until it is loaded by request: then as it is by then."""
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        await made.sync.unload("a", wait=True)
        write_model(tmp_path / "a", v1="changed")
        await made.followed(tmp_path)
        assert made.rows() == {("a", 1): (UNAVAILABLE, "unloaded")}
        await made.sync.load("a")
        assert made.answering("a") == "changed"


async def test_load_looks_at_once(tmp_path: Path) -> None:
    """ "Check now": without waiting for a poll or for quiet; what is loaded is not loaded again."""
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path, poll_s=NEVER_S, settle_s=NEVER_S) as made:
        await made.sync.load("a")
        assert made.opener.contents == ["x"]
        write_model(tmp_path / "a", v1="y")
        write_model(tmp_path / "b", v1="z")
        await made.sync.load("a")
        await made.sync.load("b")
        assert (made.answering("a"), made.answering("b")) == ("y", "z")


async def test_load_tells_why_it_failed(tmp_path: Path) -> None:
    """And tries again, however short ago that was."""
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        made.opener.failures["bad"] = ModelLoadFailed("broken")
        write_model(tmp_path / "a", v2="bad")
        for _ in range(2):
            with pytest.raises(LoadFailed) as caught:
                await made.sync.load("a")
            assert caught.value.causes == ((2, "broken"),)
        assert made.opener.begun.count("bad") >= 2
        assert made.answering("a") == "x"
        place(tmp_path / "a" / "config.yaml", b"[")
        with pytest.raises(LoadFailed, match=r"config\.yaml"):
            await made.sync.load("a")
        with pytest.raises(ModelNotFound):
            await made.sync.load("c")


async def test_an_override_lasts_until_the_next_plain_load(tmp_path: Path) -> None:
    """Which means what the disk says, also if that is the same as before."""
    write_model(tmp_path / "a", "max_batch_size: 4", v1="x")
    async with synced(tmp_path) as made:
        await made.sync.load("a", override={"max_batch_size": 2})
        assert made.model("x").config.max_batch_size == 2
        assert made.catalog.model("a").wanted.overridden
        write_model(tmp_path / "a", v1="changed")
        await until(lambda: made.serves("a", "changed"))
        assert made.model("changed").config.max_batch_size == 2
        await made.sync.load("a")
        assert made.model("changed").config.max_batch_size == 4
        assert not made.catalog.model("a").wanted.overridden


async def test_an_override_ends_with_unload(tmp_path: Path) -> None:
    write_model(tmp_path / "a", "max_batch_size: 4", v1="x")
    async with synced(tmp_path) as made:
        await made.sync.load("a", override={"max_batch_size": 2})
        await made.sync.unload("a")
        await made.sync.load("a")
        assert made.model("x").config.max_batch_size == 4


async def test_a_faulty_override_changes_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        for override in ({"max_batch": 2}, {"name": "b"}):
            with pytest.raises(ConfigInvalid) as caught:
                await made.sync.load("a", override=override)
            assert caught.value.source == "config override"
        await made.followed(tmp_path)
        assert made.opener.begun.count("x") == 1
        assert not made.catalog.model("a").wanted.overridden


async def test_many_loads_of_one_model_at_the_same_time_all_end(tmp_path: Path) -> None:
    """Each of them when it is served; it is loaded once."""
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path, mode=ControlMode.EXPLICIT) as made:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(made.sync.load("a") for _ in range(32)))
        assert made.opener.contents == ["x"]


async def test_a_load_while_its_model_changes_by_itself(tmp_path: Path) -> None:
    """It answers for what is there at its end."""
    write_model(tmp_path / "a", v1="x")
    async with synced(tmp_path) as made:
        gate = made.opener.hold("slow")
        write_model(tmp_path / "a", v1="slow")
        loading = asyncio.create_task(made.sync.load("a"))
        await made.opener.has_begun("slow")
        write_model(tmp_path / "a", v1="last")
        await until(lambda: made.serves("a", "last"))
        gate.set()
        await asyncio.gather(loading, return_exceptions=True)
        assert made.answering("a") == "last"
        assert "slow" not in made.opener.contents


# --- modes ---


async def test_explicit_loads_only_what_is_asked_for(tmp_path: Path) -> None:
    """At start by name; later by request, and nothing by itself."""
    for name in "abc":
        write_model(tmp_path / name, v1=name)
    mode = ControlMode.EXPLICIT
    async with synced(tmp_path, mode=mode, load_model=["b"]) as made:
        assert made.rows() == {
            ("a", 0): (UNAVAILABLE, ""),
            ("b", 1): (READY, ""),
            ("c", 0): (UNAVAILABLE, ""),
        }
        assert made.answering() == "b"
        write_model(tmp_path / "b", v1="changed")
        await made.sync.refresh()
        await made.sync.load("a")
        assert (made.answering("a"), made.answering("b")) == ("a", "b")
        await made.sync.load("b")
        assert made.answering("b") == "changed"


async def test_explicit_with_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(tmp_path / "a", v1="a")
    async with synced(tmp_path, mode=ControlMode.EXPLICIT, load_model=["*"]) as made:
        assert made.answering("a") == "a"
        assert "is not in the repository" not in caplog.text


@pytest.mark.parametrize("settings", [{"load_model": ["b"]}, {"default_model": "b"}])
async def test_a_name_that_is_not_there_is_told_at_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    write_model(tmp_path / "a", v1="a")
    async with synced(tmp_path, mode=ControlMode.EXPLICIT, **settings):
        assert "model 'b' is not in the repository; it holds: a" in caplog.text


async def test_refresh_lists_what_has_come_and_gone(tmp_path: Path) -> None:
    """In mode explicit, where nobody looks by itself. What serves stays."""
    write_model(tmp_path / "a", v1="a")
    write_model(tmp_path / "b", v1="b")
    async with synced(tmp_path, mode=ControlMode.EXPLICIT, load_model=["a"]) as made:
        write_model(tmp_path / "c", v1="c")
        shutil.rmtree(tmp_path / "b")
        shutil.rmtree(tmp_path / "a")
        await made.sync.refresh()
        assert made.rows() == {("a", 1): (READY, ""), ("c", 0): (UNAVAILABLE, "")}
        assert made.answering("a") == "a"
        with pytest.raises(ModelNotFound):
            await made.sync.load("b")


async def test_none_never_looks_again(tmp_path: Path) -> None:
    write_model(tmp_path / "a", v1="a")
    async with synced(tmp_path, mode=ControlMode.NONE) as made:
        write_model(tmp_path / "a", v1="changed")
        assert made.answering("a") == "a"
        assert not [task for task in asyncio.all_tasks() if "RepositorySync._run" in repr(task)]


async def test_closing_gives_up_what_is_followed(tmp_path: Path) -> None:
    """A load in progress; then nothing is followed any more."""
    async with synced(tmp_path) as made:
        made.opener.hold("x")
        write_model(tmp_path / "a", v1="x")
        await made.opener.has_begun("x")
        await asyncio.wait_for(made.sync.aclose(), PATIENCE_S)
        assert made.opener.loading == 0


async def test_a_shared_task_outlives_whoever_waits_for_it() -> None:
    """And whoever waits for one that is given up is told so, not cancelled."""
    task = asyncio.create_task(asyncio.sleep(NEVER_S))
    one, other = asyncio.create_task(shared(task)), asyncio.create_task(shared(task))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert not task.done()
    task.cancel()
    with pytest.raises(ServerStopping):
        await other
