"""The first and last moments of a process of ours. What it runs is imported within."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

EXIT_INTERRUPTED = 130
EXIT_UNWRITTEN: Final = 120
"""What was printed could not be written; it is Python's own."""
GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Next to nothing here is a cycle. By default a body of many small lists is looked through so often
while it is parsed that this takes eight times as long, and everybody waits; imports are slowed, too."""
_LIBRARIES: Final = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy starts a thread a core for what we never ask of it
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # it would look through every package for them
}
"""What libraries are told before they are imported, unless they have been told."""


class _End:
    """Ends the process at once: to take the interpreter apart is a tenth of a second for nothing.

    Registered before anything else, it is called last.
    """

    status: int | None = None
    """What the process ends with; None: Python is to say what went wrong."""

    def __call__(self) -> None:
        if self.status is None:
            return
        try:
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()
        except OSError as error:
            self.status = self.status or EXIT_UNWRITTEN
            with contextlib.suppress(OSError):
                sys.stderr.write(f"Error: stdout cannot be written: {error.strerror}\n")
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(self.status)


def begin(load: Callable[[], Callable[[], None]]) -> None:
    """Import a command with `load` and run it; Ctrl-C ends both without a traceback.

    The process is the command's: it ends with it.
    """
    open_closed()
    end = _End()
    if not _others_wait_for_the_end():
        atexit.register(end)
    gc.set_threshold(*GC_THRESHOLDS)
    for name, value in _LIBRARIES.items():
        os.environ.setdefault(name, value)
    catches = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # not under nohup
    try:
        if catches:  # there is nothing to clean up yet
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        command = load()
        if catches:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
        end.status = 0
    except KeyboardInterrupt:
        end.status = EXIT_INTERRUPTED
        raise SystemExit(EXIT_INTERRUPTED) from None
    except SystemExit as exit_:
        code = exit_.code or 0
        end.status = code if isinstance(code, int) else None  # a sentence that Python prints
        raise
    finally:
        if catches:  # nor is there any more
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _others_wait_for_the_end() -> bool:
    """Whether somebody around us, who measures or traces us from outside, has registered already.

    Such a one would be called after us, and then not at all.
    """
    count: Callable[[], int] = getattr(atexit, "_ncallbacks", lambda: 0)  # CPython's
    return count() > 0


def open_closed() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed (`>&-`).

    Else the next file or socket that is opened would take its place: what is printed would go there,
    and libuv aborts when it closes one. `sys.stdout` stays None, so that a result that has nowhere to
    go can still be told.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so this one
            os.set_inheritable(opened, True)
    if sys.stderr is None:  # print() would take stdout in its place
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  for good
