"""`nerve serve` that tells on request what it holds: the daemon with one thread more.

Each line on stdin is answered with a line on stdout that begins with `MARK`. The daemon itself is as
`python -m nerve` has it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MARK: Final = "held: "
PATIENCE_S: Final = 60.0


def _counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name is there, numbers in it left out."""
    return dict(sorted(Counter(re.sub(r"\d+", "N", name) for name in names).items()))


def _open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:  # that of the listing itself
            continue
    return found


def _children() -> int:
    tasks = Path("/proc/self/task").iterdir()
    return sum(len((task / "children").read_text(encoding="ascii").split()) for task in tasks)


def _resident_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def _loop() -> asyncio.AbstractEventLoop | None:
    """The daemon's: the one that runs."""
    for each in gc.get_objects():
        if isinstance(each, asyncio.AbstractEventLoop) and each.is_running():
            return each
    return None


def _tasks(loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    answer: concurrent.futures.Future[dict[str, int]] = concurrent.futures.Future()

    def count() -> None:
        coroutines = [task.get_coro() for task in asyncio.all_tasks(loop)]
        answer.set_result(_counted(getattr(each, "__qualname__", str(each)) for each in coroutines))

    loop.call_soon_threadsafe(count)
    return answer.result(PATIENCE_S)


def held(loop: asyncio.AbstractEventLoop) -> dict[str, object]:
    """What the process holds now: counts by name, and bytes."""
    gc.collect()
    return {
        "tasks": _tasks(loop),
        "threads": _counted(thread.name for thread in threading.enumerate()),
        "files": _counted(_open_files()),
        "children": _children(),
        "rss_bytes": _resident_kib("VmRSS") * 1024,
        "peak_bytes": _resident_kib("VmHWM") * 1024,
    }


def _answer() -> None:
    loop: asyncio.AbstractEventLoop | None = None
    for _ in sys.stdin:
        loop = loop or _loop()
        assert loop is not None, "the daemon has no event loop"
        print(MARK + json.dumps(held(loop)), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)  # whoever started us has been killed


if __name__ == "__main__":
    from nerve.__main__ import main

    threading.Thread(target=_answer, name="probe", daemon=True).start()
    main()
