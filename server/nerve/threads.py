"""Slow loads in threads of their own, so that they take none from the pool that requests use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")

STOP_WAIT_S: Final = 5.0
"""Longest wait for the thread of a load that was cancelled."""


async def in_own_thread(
    work: Callable[[], T], *, name: str, stop: Callable[[], None] | None = None
) -> T:
    """Do `work` in a new thread.

    When this is cancelled, the thread is told to stop and waited for, at most `STOP_WAIT_S`; what
    it brings afterwards is dropped. It is a daemon thread: a load that hangs for ever must not
    keep the process from ending.

    Args:
        work: what to do.
        name: of the thread.
        stop: makes `work` end early; called on the event loop.
    """
    waiting = asyncio.wrap_future(in_thread(work, name=name))
    # An error that comes when nobody waits any more is no news.
    waiting.add_done_callback(lambda each: each.cancelled() or each.exception())
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait({waiting}, timeout=STOP_WAIT_S)
        raise


def in_thread(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begin `work` in a new daemon thread called `name`."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  boundary: it is raised where it is awaited
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
