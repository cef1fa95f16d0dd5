"""A built program as processes: PyInstaller's boot loader, which unpacks and waits, and its child."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nerve.processes import is_frozen

_PR_SET_PDEATHSIG: Final = 1
_PARENT: Final = os.getppid()
_LATER: Final = (
    "nerve.frontend.grpc.server",
    "nerve.frontend.mcp.server",
    "nerve.pipeline.transform",
    "nerve.tracing.tracing",
    "nerve.transforming.worker",
)
"""What is imported when it is needed first, or in processes of its own."""


def program() -> Path:
    """The built file that runs."""
    return Path(sys.executable)


def be_the_program() -> None:
    """Have signals to the program come here, once each.

    The boot loader hands on what it gets. Ctrl-C at a terminal goes to its whole process group, and
    so would come twice, which means "at once"; and it cannot hand on SIGKILL.
    """
    if not is_frozen():
        return
    with contextlib.suppress(OSError):  # we lead a session already
        os.setpgid(0, 0)
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != _PARENT:  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """An empty folder that nobody else can read, gone when this or the process ends.

    It lies in the folder that the boot loader unpacks into and removes however we end.
    """
    home = getattr(sys, "_MEIPASS", None)
    with (
        _held(home),
        tempfile.TemporaryDirectory(prefix="model-", dir=home) as folder,
    ):
        yield Path(folder)


@contextlib.contextmanager
def _held(home: str | None) -> Iterator[None]:
    """Lock a folder, as systemd-tmpfiles, which cleans /tmp up, leaves locked ones alone."""
    if home is None:
        yield
        return
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def tidy_up() -> None:
    """Remove what the boot loader unpacked, should it be gone and cannot do it."""
    home = getattr(sys, "_MEIPASS", None)
    if is_frozen() and home is not None and os.getppid() != _PARENT:
        shutil.rmtree(home, ignore_errors=True)


def load_everything() -> None:
    """Import all that the commands may need. Raises ImportError, RuntimeMissing."""
    from nerve.engine.session import require_runtime  # noqa: PLC0415  keeps `--help` fast

    for name in ("nerve.cli.mcp", "nerve.cli.tagger", "nerve.frontend.grpc.nerve", *_LATER):
        importlib.import_module(name)
    require_runtime()
