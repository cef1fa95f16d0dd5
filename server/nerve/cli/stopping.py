"""Requests to stop a command: Ctrl-C, SIGTERM, SIGHUP. What it has begun is cleaned up, without a word.

A handler that raises does so wherever the program is. Within a step of the event loop that would
leave a callback half done, and a traceback in the log; so would the handler that `asyncio.run` has,
which cancels where it is. Here the loop is asked to cancel between two steps.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

EXIT_OF_SIGNAL: Final = 128
"""What a shell adds to a signal's number."""
_ENDING: Final = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has no SIGHUP


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP clean up before they end us, as Ctrl-C does."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(EXIT_OF_SIGNAL + number)

    wanted = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, end) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` for commands.

    A first request to stop cancels `work`, and is raised when it has cleaned up; a second one is
    raised at once.
    """
    before = {
        number: handler
        for number in (signal.SIGINT, *_ENDING)
        if callable(handler := signal.getsignal(number))
    }
    asked: list[int] = []
    running: list[asyncio.Task[Any]] = []

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None  # we are in it
        running.append(task)
        if asked:
            raise asyncio.CancelledError
        return await work

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            # What is said of tasks that are broken off now is no news.
            logging.getLogger("asyncio").disabled = True
            before[number](number, frame)
        asked.append(number)
        for task in running:
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    for number in before:
        signal.signal(number, ask)
    try:
        return asyncio.run(watched())
    finally:
        work.close()  # it may not have begun
        _restore(before)
        if asked:
            before[asked[0]](asked[0], None)


def _restore(handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any]]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
