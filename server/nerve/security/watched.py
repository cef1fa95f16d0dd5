"""Notices that files have changed, also where Kubernetes swaps a link above them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
"""Time between two looks."""
Signature = tuple[tuple[int, ...] | int, ...]
"""Of each file what changes with it, or why it cannot be seen."""


def signature(paths: Sequence[Path]) -> Signature:
    """What the files are like now; links are followed."""
    return tuple(_signature(path) for path in paths)


def _signature(path: Path) -> tuple[int, ...] | int:
    try:
        found = os.stat(path)  # noqa: PTH116  Path.stat takes three times as long
    except OSError as error:
        return error.errno or -1
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


async def watch(
    paths: Sequence[Path],
    seen: Signature,
    changed: Callable[[], Awaitable[None]],
    *,
    look_s: float = LOOK_S,
) -> None:
    """Call `changed` when files have changed and are quiet again; until cancelled.

    Args:
        paths: may come and go.
        seen: what they were like before they were last read.
        changed: reads them, and never raises.
        look_s: time between two looks; in between they must have been quiet.
    """
    before = seen
    while True:
        await asyncio.sleep(look_s)
        now = await asyncio.to_thread(signature, paths)
        if now != seen and now == before:
            seen = now
            await changed()
        before = now
