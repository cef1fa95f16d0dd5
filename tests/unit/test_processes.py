"""Forks of a process, in interpreters that have one thread, which pytest's may not have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import os, signal, socket, subprocess, sys, threading, time
from nerve.processes import ForkedProcess, forks_safely

ours, theirs = socket.socketpair()
"""


def told(script: str) -> subprocess.CompletedProcess[str]:
    """What a script that forks prints."""
    command = [sys.executable, "-c", BEGIN + script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_shares_stderr_and_what_it_is_to_keep(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    ran = told(f"""
file = open({str(secret)!r})
def run():
    print("to nobody", flush=True)
    os.write(2, b"to stderr;")
    files = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    alone = os.getsid(0) == os.getpid()
    theirs.sendall(repr((files, alone, sys.stdin.read())).encode())
fork = ForkedProcess(run, keep=theirs.fileno())
print(fork.wait(30), fork.poll())
listing = 3
print(ours.recv(999).decode() == repr((sorted([0, 1, 2, listing, theirs.fileno()]), True, "")))
""")
    assert (ran.stdout, ran.stderr) == ("0 0\nTrue\n", "to stderr;")


def test_how_it_ends_is_told() -> None:
    ran = told("""
def end(run):
    return ForkedProcess(run, keep=theirs.fileno()).wait()
print(end(lambda: os._exit(7)), end(lambda: os.kill(os.getpid(), signal.SIGSEGV)), end(lambda: 1 / 0))
fork = ForkedProcess(lambda: time.sleep(60), keep=theirs.fileno())
try:
    fork.wait(0.1)
except subprocess.TimeoutExpired as error:
    print(fork.poll(), error.timeout)
fork.kill()
print(fork.wait(30))
fork.kill()  # nobody any more
""")
    assert ran.stdout == "7 -11 1\nNone 0.1\n-9\n"
    assert "ZeroDivisionError" in ran.stderr


def test_ends_that_the_system_forgets() -> None:
    """As for the children of one that was started with SIGCHLD ignored."""
    ran = told("""
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(ForkedProcess(lambda: os._exit(7), keep=theirs.fileno()).wait(30))
""")
    assert (ran.stdout, ran.stderr) == ("0\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="is never safe elsewhere")
def test_a_second_thread_makes_it_unsafe() -> None:
    ran = told("""
print(forks_safely())
threading.Thread(target=lambda: ours.recv(1), daemon=True).start()
print(forks_safely())
""")
    assert ran.stdout == "True\nFalse\n"
