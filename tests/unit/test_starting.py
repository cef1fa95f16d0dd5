"""The first moments of a process: streams that are closed, Ctrl-C. Each test starts one."""

from __future__ import annotations

import os
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


ENDING = """
import atexit, sys, threading, time
from nerve.starting import begin
def thread():
    time.sleep(0.05)
    print("thread", end=" ")
def command():
    atexit.register(lambda: print("last", end=""))
    threading.Thread(target=thread).start()
    {ending}
begin(lambda: command)
"""


@pytest.mark.parametrize(
    ("ending", "status", "told"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('so')", 1, "so\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise ValueError('so')", 1, "ValueError: so\n"),
    ],
)
def test_nothing_is_lost_in_the_end(ending: str, status: int, told: str) -> None:
    """Though the interpreter is not taken apart: threads are waited for, what is printed gets out."""
    code = ENDING.format(ending=ending)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=60, text=True
    )
    assert (ended.returncode, ended.stdout) == (status, "thread last")
    assert ended.stderr.endswith(told)
    assert (ended.stderr == told) == ("Error" not in told)


def test_whoever_waits_around_us_is_told() -> None:
    """A tool that measures or traces a process registers before it, and is called after it."""
    code = (
        "import atexit\nfrom nerve.starting import begin\n"
        "atexit.register(lambda: print('saved'))\nbegin(lambda: lambda: None)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True
    )
    assert ended.stdout == "saved\n"


def test_what_cannot_be_printed_in_the_end_is_told() -> None:
    code = "from nerve.starting import begin\nbegin(lambda: lambda: print('lost'))"
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >/dev/full', sys.executable, code],
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        capture_output=True, check=False, timeout=60, text=True,
    )  # fmt: skip
    assert ended.returncode == 120
    assert ended.stderr == "Error: stdout cannot be written: No space left on device\n"


def test_libraries_keep_what_they_were_told() -> None:
    """Our own word comes only where nobody else's does."""
    code = (
        "import os\nfrom nerve.starting import begin\n"
        "names = ('OPENBLAS_NUM_THREADS', 'PYDANTIC_DISABLE_PLUGINS')\n"
        "begin(lambda: lambda: print(*[os.environ[name] for name in names]))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "3"}
    environment.pop("PYDANTIC_DISABLE_PLUGINS", None)
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60
    )
    assert ended.stdout == b"3 __all__\n"


def test_a_command_imports_no_more_than_it_needs() -> None:
    """What a command only needs when it works, the others and `--help` do without."""
    heavy = ["aiohttp", "grpc", "numpy", "onnxruntime", "rich", "tokenizers"]
    script = f"import sys, nerve.cli; print(*(each for each in {heavy} if each in sys.modules))"
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "\n"
