"""The quota of a process, in trees of control groups as they are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerve.engine.cgroup import cpu_quota


@pytest.mark.parametrize(
    ("group", "limits", "quota"),
    [
        pytest.param("/", {".": "150000 100000"}, 1.5, id="container"),
        pytest.param(
            "/system.slice/nerve.service",
            {"system.slice": "max 100000", "system.slice/nerve.service": "200000 100000"},
            2.0,
            id="systemd",
        ),
        pytest.param(
            "/a/b", {"a": "100000 100000", "a/b": "400000 100000"}, 1.0, id="one above is tighter"
        ),
        pytest.param("/a", {"a": "max 100000"}, None, id="no quota"),
        pytest.param("/../b", {".": "50000 100000"}, 0.5, id="namespace entered from outside"),
    ],
)
def test_quota(tmp_path: Path, group: str, limits: dict[str, str], quota: float | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"4:memory:/x\n0::{group}\n")
    for folder, text in limits.items():
        place = tmp_path / "sys/fs/cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(text + "\n")
    assert cpu_quota(tmp_path) == quota


def test_nothing_to_read(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
