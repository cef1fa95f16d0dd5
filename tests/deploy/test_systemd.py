"""The unit, as systemd reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.tools import DEPLOY, program
from nerve.config.server import load_server_config

UNIT: Final = DEPLOY / "systemd" / "nerve.service"
MOST_EXPOSED: Final = 20
"""Tenths, of systemd's score from 0 (confined) to 10; 1.4 when it was written."""


def service() -> dict[str, list[str]]:
    """What is in [Service]; keys may be there several times."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values


def test_systemd_understands_it_and_finds_it_confined(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", of="apt-get install systemd")
    copy = tmp_path / "nerve.service"
    # the only thing that is not there
    copy.write_text(UNIT.read_text().replace("/opt/nerve/bin/nerve", sys.executable))
    checked = subprocess.run(
        [analyze, "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    scored = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", copy],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stdout[-200:]


def test_the_server_understands_its_variables_and_is_given_time_to_end() -> None:
    said = service()
    environment = dict(each.split("=", 1) for each in said["Environment"])
    config = load_server_config({}, environment, None)
    (most,) = said["TimeoutStopSec"]
    assert int(most) > config.shutdown_delay_s + config.shutdown_timeout_s
    # the daemon ends its processes itself, after their last call
    assert said["KillMode"] == ["mixed"]
