"""What is told when a runtime cannot be made. That one can be, tests/cookbook shows."""

from __future__ import annotations

import importlib.util
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from nerve.building import freezing
from nerve.building.faults import BuildFailed
from nerve.building.freezing import make_runtime, require_freezer


def test_what_pyinstaller_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "bad.spec"
    spec.write_text("raise SystemExit('no such bootloader')")
    monkeypatch.setattr(freezing, "SPEC", spec)
    with pytest.raises(
        BuildFailed, match=r"could not make the runtime:\n(.*\n)*no such bootloader"
    ):
        make_runtime(tmp_path)


def test_a_runtime_that_does_not_run_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started as on the barest machine."""
    spec = tmp_path / "bad.spec"
    program = "#!/bin/sh\necho args=$1 path=$PATH home=$HOME\nexit 3\n"
    spec.write_text(f"open({str(tmp_path / 'runtime')!r}, 'w').write({program!r})")
    monkeypatch.setattr(freezing, "SPEC", spec)
    with pytest.raises(BuildFailed, match=r"does not run:\nargs=--nerve-check path= home=$"):
        make_runtime(tmp_path)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "bad.spec"
    spec.write_text("raise OSError(28, 'No space left on device')")
    monkeypatch.setattr(freezing, "SPEC", spec)
    with pytest.raises(BuildFailed, match=r"^there is no room .*: --cache-dir$"):
        make_runtime(tmp_path)


def test_a_build_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """What makes the runtime holds a pipe open; it ends when that process does."""
    spec, pipe = tmp_path / "waiting.spec", tmp_path / "pipe"
    os.mkfifo(pipe)
    spec.write_text(
        f"import signal\nfile = open({str(pipe)!r}, 'w')\nprint('begun', file=file, flush=True)\n"
        "signal.pause()"
    )
    code = (
        "import sys; from pathlib import Path; from nerve.building import freezing\n"
        f"freezing.SPEC = Path({str(spec)!r}); freezing.make_runtime(Path({str(tmp_path)!r}))"
    )
    build = subprocess.Popen([sys.executable, "-c", code])
    try:
        with pipe.open() as file:
            assert file.readline() == "begun\n"
            build.kill()
            assert select.select([file], [], [], 30)[0]
            assert file.read() == ""
    finally:
        build.kill()
        build.wait()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "PyInstaller" else found(name)
    )
    with pytest.raises(BuildFailed, match=r"PyInstaller not found.*'nerve-server\[build\]'"):
        require_freezer()


def test_other_systems_are_told_what_they_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BuildFailed, match=r"makes programs for Linux.*--format folder"):
        require_freezer()
