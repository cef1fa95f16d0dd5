"""How we start processes of our own: a module, also in a program that `nerve build` made; or a fork.

Such a program has no interpreter to call: it starts itself, and its main hands over to `run_module`
before it looks at anything else.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

MODULES: Final = ("nerve.engine.precision", "nerve.proof_server", "nerve.transforming.worker")
"""All that may be started so."""
MODULE_FLAG: Final = "--nerve-module"
"""First argument of a built program that is to be one of them."""
_LONGEST_PAUSE_S: Final = 0.05


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module (`python -m`) with these arguments.

    Raises:
        ValueError: it is none of MODULES.
    """
    _check(name)
    if is_frozen():
        return [sys.executable, MODULE_FLAG, name, *arguments]
    # -P: what lies in the working folder is not imported
    return [sys.executable, "-P", "-m", name, *arguments]


def is_frozen() -> bool:
    """Whether this is a program that `nerve build` made, not a Python installation."""
    return bool(getattr(sys, "frozen", False))


def asks_for_module(arguments: Sequence[str]) -> bool:
    """Whether a built program, started with these arguments, is to be one of MODULES."""
    return len(arguments) > 1 and arguments[0] == MODULE_FLAG


def run_module(arguments: Sequence[str]) -> None:
    """Be the module that the arguments ask for, until it ends.

    Raises:
        ValueError: it is none of MODULES.
    """
    _, name, *rest = arguments
    _check(name)
    sys.argv = [name, *rest]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _check(name: str) -> None:
    if name not in MODULES:
        raise ValueError(f"{name} is none of {', '.join(MODULES)}")


def forks_safely() -> bool:
    """Whether this process has one thread only, as far as can be seen.

    Elsewhere than on Linux it cannot, and system libraries dislike a mere fork there.
    """
    tasks = Path("/proc/self/task")
    return sys.platform == "linux" and tasks.is_dir() and len(list(tasks.iterdir())) == 1


class ForkedProcess:
    """A fork of this process, away from its terminal; with the interface of `subprocess.Popen`."""

    def __init__(self, run: Callable[[], None], *, keep: int) -> None:
        """Fork.

        Args:
            run: what the fork does; then it ends, without the interpreter's clean-up.
            keep: the descriptor that stays open there, besides stderr.
        Raises:
            OSError: the system starts no process.
        """
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _leave(keep)
                run()
                os._exit(0)
            except BaseException:  # noqa: BLE001  boundary: there is nobody above
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # who started us has the system forget how our children end
                pid, status = self.pid, 0
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, later.

        Raises:
            subprocess.TimeoutExpired: it has not ended within so many seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause_s = 0.0005
        while (code := self.poll()) is None:
            if timeout is not None and until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return code

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _leave(keep: int) -> None:
    """Share nothing with the process that we come from but stderr and `keep`."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    for number in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number != keep:
            with contextlib.suppress(OSError):  # the listing itself
                os.close(number)
