"""The first moments of a process of ours. What it runs is imported within; nothing heavy is here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

EXIT_INTERRUPTED = 130


def begin(load: Callable[[], Callable[[], None]]) -> None:
    """Import a command with `load` and run it; Ctrl-C ends both without a traceback."""
    open_closed()
    catches = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # not under nohup
    try:
        if catches:  # there is nothing to clean up yet
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        command = load()
        if catches:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:
        if catches:  # nor is there any more
            signal.signal(signal.SIGINT, signal.SIG_DFL)


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
