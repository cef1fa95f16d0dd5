"""The first moments of a process: streams that are closed, Ctrl-C. Each test starts one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

OPENED = """
import os, sys
from nerve.starting import open_closed
open_closed()
for number in range(3):
    os.fstat(number)
    assert os.get_inheritable(number)
assert os.open(os.devnull, os.O_RDONLY) > 2
print("seen", file=sys.stderr)
"""
INTERRUPTED = """
import os, signal
from nerve.starting import begin
def load():
    {first}
    return lambda: os.kill(os.getpid(), signal.SIGINT)
begin(load)
"""


@pytest.mark.parametrize("closed", ["", "<&-", "<&- >&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str) -> None:
    """And what goes to stderr never comes on stdout."""
    line = ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, OPENED]
    ended = subprocess.run(line, capture_output=True, check=False, timeout=60)
    shown = b"" if "2>&-" in closed else b"seen\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", shown)


@pytest.mark.parametrize("is_early", [True, False])
def test_ctrl_c_is_quiet(is_early: bool) -> None:
    first = "os.kill(os.getpid(), signal.SIGINT)" if is_early else "pass"
    code = INTERRUPTED.format(first=first)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == (-signal.SIGINT if is_early else 130)
    assert (ended.stdout, ended.stderr) == (b"", b"")
