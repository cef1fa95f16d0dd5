"""The process that runs a transform, as the daemon's threads see it that start and reap it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Final

from nerve.processes import python_module

MODULE: Final = "nerve.transforming.worker"
END_WAIT_S: Final = 0.5
"""How long a process whose socket was closed may take to end before it is killed."""
_ENVIRONMENT: Final = frozenset(
    {"LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "PYTHONHOME"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "SYSTEMROOT", "TMPDIR"}
)
"""What of the daemon's environment Python may need; a script has no business with the rest."""
_BUILT_PROGRAM: Final = "_PYI_"
"""What a built program tells itself when it starts itself begins so; else it unpacks again."""


class Child:
    """The process, seen from the threads that start and reap it.

    Not asyncio's: with uvloop that forks on the event loop, all of the daemon's memory mapped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def pid(self) -> int:
        """0 before it is started."""
        return 0 if self._process is None else self._process.pid

    def start(self, end: socket.socket) -> None:
        """Start it with `end` of its socket, which is closed here.

        Raises:
            OSError: there cannot be another process.
        """
        if sys.platform == "win32":
            end.close()
            raise OSError("this system cannot hand a socket to another process")
        with end, self._lock:
            if self._stopped:
                raise ProcessLookupError("it was given up before it was started")
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                python_module(MODULE, str(end.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the daemon's is for its own lines
                pass_fds=[end.fileno()],
                start_new_session=True,  # Ctrl-C at a terminal is for the daemon alone
                env=_environment(),
            )

    def kill(self) -> None:
        """End it now, and do not start it."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()  # no effect once it is reaped

    def reap(self) -> int:
        """Wait until it is gone, which it is soon; its exit code."""
        process = self._process
        if process is None:
            return 0
        try:
            return process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return process.wait()


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_BUILT_PROGRAM)
    }
    path = os.pathsep.join(each or "." for each in sys.path)
    return {**kept, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
