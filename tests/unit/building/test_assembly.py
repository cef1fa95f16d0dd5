"""The executable file: its parts in their places, there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nerve.building.assembly import assemble
from nerve.building.contents import pack
from nerve.building.faults import BuildFailed
from nerve.building.payload import Blob, Packing, read_built_file
from nerve.building.runtime import read_runtime
from nerve.importing.plan import ImportPlan
from unit.building.conftest import LOADER, MakeRuntime


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "build").mkdir()
    return tmp_path / "build"


def test_the_archive_is_behind_the_model(
    plan: ImportPlan, make_runtime: MakeRuntime, folder: Path
) -> None:
    """Where the boot loader, which looks from the end backwards, finds it at once."""
    runtime = read_runtime(make_runtime())
    output = folder / "x.encoderfile"
    size_bytes = assemble(runtime, pack(plan, max_tokens=64), output)
    content = output.read_bytes()
    archive = runtime.path.read_bytes()[runtime.archive :]
    assert size_bytes == len(content)
    assert content.startswith(LOADER)
    assert content[:-32].endswith(archive)
    built = read_built_file(output)
    built.check()
    assert built.start == len(LOADER)
    mask = os.umask(0)
    os.umask(mask)
    assert output.stat().st_mode & 0o777 == 0o777 & ~mask
    assert names(folder) == ["x.encoderfile"]
    with pytest.raises(BuildFailed, match="has a model in it already"):
        read_runtime(output)


def test_a_build_that_fails_leaves_what_was_there(make_runtime: MakeRuntime, folder: Path) -> None:
    source = folder.parent / "source"
    source.write_bytes(b"before")
    packing = Packing()
    packing.put(packing.manifest.weights, Blob.of(source))
    source.write_bytes(b"after!")
    output = folder / "x"
    output.write_bytes(b"old")
    with pytest.raises(BuildFailed, match="has changed"):
        assemble(read_runtime(make_runtime()), packing, output)
    assert names(folder) == ["x"]
    assert output.read_bytes() == b"old"


def test_so_does_one_that_is_broken_off(
    make_runtime: MakeRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        assert len(names(folder)) == 1  # it is being written
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assemble(read_runtime(make_runtime()), Packing(), folder / "x")
    assert names(folder) == []


def test_a_file_in_use_is_replaced(make_runtime: MakeRuntime, folder: Path) -> None:
    output = folder / "x"
    output.write_bytes(b"old")
    with output.open("rb") as running:
        assemble(read_runtime(make_runtime()), Packing(), output)
        assert running.read() == b"old"
    assert read_built_file(output)


def test_where_nothing_can_be_written(make_runtime: MakeRuntime, folder: Path) -> None:
    runtime = read_runtime(make_runtime())
    (folder / "file").touch()
    cases = {
        folder / "none" / "x": f"make it: mkdir -p {folder / 'none'}",
        folder / "file" / "x": "file is no folder",
        folder: "it is a folder; name a file",
        Path("/proc/x"): "cannot be written",
    }
    for output, words in cases.items():
        with pytest.raises(BuildFailed, match=words):
            assemble(runtime, Packing(), output)
    assert names(folder) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(make_runtime: MakeRuntime, folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(BuildFailed, match="no permission"):
        assemble(read_runtime(make_runtime()), Packing(), folder / "x")
    folder.chmod(0o700)
