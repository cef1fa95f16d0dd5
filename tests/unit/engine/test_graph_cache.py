"""The folder of optimised graphs: what an entry is found by, who may write, what goes first."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from nerve.config.running import GraphLevel
from nerve.engine.graph_cache import (
    LEFTOVER_S,
    GraphCache,
    NotCachedError,
    checksum,
    entry_key,
    machine_identity,
)
from nerve.engine.session import Session, runtime_identity
from nerve.types import VersionFiles

ALL = GraphLevel.ALL
MB = 2**20


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inspected(graph: Path, **external: Path) -> VersionFiles:
    digests = {path: digest(path) for path in (graph, *external.values())}
    return VersionFiles(1, graph, {}, external=external, digests=digests)


def silent(text: str) -> None:
    pytest.fail(text)


def fill(cache: GraphCache, files: VersionFiles, level: GraphLevel = ALL) -> Path:
    temporary = cache.temporary("test")
    cache.write(files, level, temporary)
    return cache.keep(files, level, temporary)


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "made" / "cache", 100 * MB)


@pytest.fixture
def files(tiny_models: Path) -> VersionFiles:
    return inspected(tiny_models / "bert" / "model.onnx")


def test_every_part_of_a_key_counts() -> None:
    def key(contents: object = ("a",), made: str = ALL, **other: str) -> str:
        parts = {"runtime": "1", "machine": "x", "provider": "cpu"} | other
        return entry_key(contents, made, **parts)

    others = {
        key(("b",)),
        key(("a", ("data", "b"))),
        key(made=GraphLevel.BASIC),
        key(made="int8 1"),
        key(runtime="2"),
        key(machine="y"),
        key(provider="gpu"),
    }
    assert len(others | {key()}) == 8
    assert key() == key()


def test_the_machine_and_the_runtime_have_a_name() -> None:
    assert machine_identity() == machine_identity()
    assert os.uname().machine in machine_identity()
    assert "Build Info" in runtime_identity()


def test_an_entry_is_found_again(cache: GraphCache, files: VersionFiles) -> None:
    """And the folder is closed to others."""
    assert cache.find(files, ALL, warn=silent) is None
    assert not cache.folder.exists()
    entry = fill(cache, files)
    assert cache.find(files, ALL, warn=silent) == entry
    assert list(cache.folder.iterdir()) == [entry]
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600
    for other in (
        cache.find(files, GraphLevel.BASIC, warn=silent),
        cache.find(replace(files, digests={}), ALL, warn=silent),
        cache.find(replace(files, digests={files.onnx or entry: "0" * 64}), ALL, warn=silent),
    ):
        assert other is None
    assert not cache.can_hold(files, GraphLevel.DISABLE)
    assert not cache.can_hold(VersionFiles(1, None, {}, "no graph"), ALL)


def test_external_data_goes_into_the_entry(
    cache: GraphCache, tiny_models: Path, tmp_path: Path
) -> None:
    """The entry needs no other file, and other data is another entry."""
    graph = tmp_path / "model.onnx"
    onnx.save_model(
        onnx.load(tiny_models / "bert" / "model.onnx"),
        str(graph),
        save_as_external_data=True,
        location="data",
        size_threshold=1024,
    )
    files = inspected(graph, data=tmp_path / "data")
    entry = fill(cache, files)
    ids = np.array([[5, 6, 7]])
    plain = Session(
        graph, gpu=None, graph_level=ALL, intra_op_threads=1, external=files.external
    ).run(ids, np.ones_like(ids), None)
    (tmp_path / "data").write_bytes(bytes(files.external["data"].stat().st_size))
    ready = Session(entry, gpu=None, graph_level=GraphLevel.DISABLE, intra_op_threads=1)
    assert ready.run(ids, np.ones_like(ids), None).tobytes() == plain.tobytes()
    assert cache.find(inspected(graph, data=tmp_path / "data"), ALL, warn=silent) is None


def test_files_that_changed_are_not_kept(cache: GraphCache, tiny_models: Path) -> None:
    """An entry must be made of what its key says."""
    graph = tiny_models / "bert" / "model.onnx"
    files = VersionFiles(1, graph, {}, digests={graph: "0" * 64})
    with pytest.raises(NotCachedError, match="have changed meanwhile"):
        fill(cache, files)
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda _: b""])
def test_a_cut_entry_is_deleted(
    cache: GraphCache, files: VersionFiles, damage: Callable[[bytes], bytes]
) -> None:
    entry = fill(cache, files)
    entry.write_bytes(damage(entry.read_bytes()))
    warnings: list[str] = []
    assert cache.find(files, ALL, warn=warnings.append) is None
    assert warnings == [f"the cached graph {entry} is damaged; it is deleted"]
    assert not entry.exists()


@pytest.mark.parametrize("size", [0, 1, 7, 8, MB - 1, MB, MB + 1, 3 * MB + 5])
def test_a_checksum_sees_every_byte(tmp_path: Path, size: int) -> None:
    """One that changes, one that is missing or added, and pieces that change places."""
    content = bytearray(np.random.default_rng(size).bytes(size))
    path = tmp_path / "file"

    def of(changed: bytes | bytearray) -> str:
        path.write_bytes(changed)
        return checksum(path)

    right = of(content)
    assert right == of(content)
    assert of(content + b"\0") != right
    for at in {0, size // 2, size - 1} if size else ():
        changed = bytearray(content)
        changed[at] ^= 0x80
        assert of(changed) != right
        assert of(content[:-1]) != right
    if size > 2 * MB:
        assert of(content[MB : 2 * MB] + content[:MB] + content[2 * MB :]) != right


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_folder_of_others_is_refused(cache: GraphCache, files: VersionFiles, mode: int) -> None:
    """Whoever can put a graph there decides on the answers."""
    entry = fill(cache, files)
    cache.folder.chmod(mode)
    assert "others can write to it" in cache.refusal()
    assert cache.find(files, ALL, warn=silent) is None
    with pytest.raises(NotCachedError, match="others can write to it"):
        fill(cache, files)
    cache.folder.chmod(0o755)
    assert cache.refusal() == ""
    assert cache.find(files, ALL, warn=silent) == entry
    entry.chmod(0o666)
    assert cache.find(files, ALL, warn=silent) is None


def test_a_folder_of_another_user_is_refused(cache: GraphCache, files: VersionFiles) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    entry = fill(cache, files)
    os.chown(entry, 12345, -1)
    assert cache.find(files, ALL, warn=silent) is None
    os.chown(cache.folder, 12345, -1)
    assert "others can write to it" in cache.refusal()


def test_a_link_is_no_entry(cache: GraphCache, files: VersionFiles, tmp_path: Path) -> None:
    entry = fill(cache, files)
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert cache.find(files, ALL, warn=silent) is None


def test_what_is_no_folder(files: VersionFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    on, under = (GraphCache(tmp_path / name, MB) for name in ("file", "file/below"))
    assert on.refusal() == "it is no folder"
    assert under.refusal() == "it cannot be looked at: Not a directory"
    for cache, words in ((on, "File exists"), (under, "Not a directory")):
        with pytest.raises(NotCachedError, match=words):
            fill(cache, files)


def test_the_entry_unused_for_longest_goes_first(
    cache: GraphCache, files: VersionFiles, tiny_models: Path
) -> None:
    first = fill(cache, files)
    size = first.stat().st_size
    second = fill(cache, files, GraphLevel.BASIC)
    for age, entry in ((200, first), (100, second)):
        os.utime(entry, (time.time() - age,) * 2)
    cache.touch(first)
    small = replace(cache, max_bytes=int(2.5 * size))
    third = fill(small, inspected(tiny_models / "roberta" / "model.onnx"))
    assert set(cache.folder.iterdir()) == {first, third}


def test_an_entry_over_the_limit_is_not_kept(cache: GraphCache, files: VersionFiles) -> None:
    small = replace(cache, max_bytes=1000)
    with pytest.raises(NotCachedError, match="more than graph_cache_bytes"):
        fill(small, files)
    assert list(cache.folder.iterdir()) == [cache.temporary("test")]  # the caller's


def test_leftovers_are_swept(cache: GraphCache, files: VersionFiles) -> None:
    """Of processes that died; not what another one is just writing."""
    cache.folder.mkdir(parents=True, mode=0o700)
    old, young, foreign = (cache.folder / name for name in (".old.tmp", ".young.tmp", "notes.txt"))
    for path in (old, young, foreign):
        path.write_text("")
    for path in (old, foreign):
        os.utime(path, (time.time() - LEFTOVER_S - 60,) * 2)
    entry = fill(cache, files)
    assert set(cache.folder.iterdir()) == {young, foreign, entry}


def test_a_graph_that_the_runtime_refuses(cache: GraphCache, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08:\x00B\x00")
    with pytest.raises(NotCachedError, match="cannot be optimised"):
        fill(cache, inspected(tmp_path / "model.onnx"))
    assert list(cache.folder.iterdir()) == []


def test_too_large_for_one_file(cache: GraphCache, tmp_path: Path, tiny_models: Path) -> None:
    """It is not read: the file here is empty but for its size."""
    shutil.copy(tiny_models / "bert" / "model.onnx", tmp_path)
    with (tmp_path / "data").open("wb") as file:
        file.truncate(2**31)
    graph = tmp_path / "model.onnx"
    external = {"data": tmp_path / "data"}
    digests = dict.fromkeys((graph, tmp_path / "data"), "0")
    with pytest.raises(NotCachedError, match="over 2 GB"):
        fill(cache, VersionFiles(1, graph, {}, external=external, digests=digests))
