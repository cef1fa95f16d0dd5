"""`nerve` commands in the test's own process, where the start of a process is not what is tested.

Importing what a command needs takes longer than most commands. Tests of what only a process has (bytes
as arguments, a locale, a terminal, signals) start one, and each command has such a test.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from nerve.cli import main


def run_here(
    *arguments: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """What `nerve …` ends with; one at a time. An exception that it lets out comes out here.

    Args:
        arguments: of the command line.
        stdin: all that it can read.
        cwd: where it runs; None: here.
        env: variables on top of those of this process.
    """
    line = ["nerve", *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd or Path.cwd()),
        _logging_as_it_was(),
        _streams(stdin, patch) as (out, err),
    ):
        patch.setattr(sys, "argv", line)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        status = _status()
        sys.stdout.flush()
        return subprocess.CompletedProcess(line, status, _content(out), _content(err))


def _status() -> int:
    """How it exits."""
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """A command's own handler writes to streams that end with it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@contextlib.contextmanager
def _streams(stdin: bytes, patch: pytest.MonkeyPatch) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Files in place of the descriptors 0 to 2, so that the runtime and children write to them, too."""
    with contextlib.ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        for number, file in enumerate((given, out, err)):
            stack.enter_context(_in_place_of(number, file))
        # as a process with a UTF-8 locale opens them
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            errors = "backslashreplace" if name == "stderr" else "strict"
            stream = open(  # noqa: SIM115  the stack closes it
                number, "w" if number else "r", encoding="utf-8", errors=errors, closefd=False
            )
            if name == "stderr":
                stream.reconfigure(line_buffering=True)
            patch.setattr(sys, name, stack.enter_context(stream))
        yield out, err


@contextlib.contextmanager
def _in_place_of(number: int, file: BinaryIO) -> Iterator[None]:
    before = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()
