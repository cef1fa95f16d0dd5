"""What the C library's allocator does with memory that models leave behind, and limits on memory.

Nothing here matters to answers; without it a server that reloads models grows for hours.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
"""<malloc.h> of glibc."""
LARGE_BYTES: Final = 128 * 1024
"""glibc's own threshold at the start of a process."""
_STACKS_BYTES: Final = 64 * 2**20
"""Allowance beside the memory limit: each thread's stack counts whole, used or not."""


def map_large_blocks() -> None:
    """Keep large blocks out of the heap for good; to be called before the first model is loaded.

    By default glibc raises the threshold to the size of each large block that is freed (mallopt(3),
    M_MMAP_THRESHOLD), so weights and working memory soon come from a heap that is full of holes:
    200 reloads of a small model grew the server by 23 %, against less than 1 % like this.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    except (OSError, AttributeError, TypeError):  # another C library, or Windows
        return


def give_memory_back() -> None:
    """Hand what has been freed to the system, where the allocator would keep it (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # as above
        return


def limit_memory(memory_bytes: int) -> None:
    """Let this process, which is to be thrown away, take so much more than it has.

    RLIMIT_DATA, not RLIMIT_AS: that would count what the allocator only reserves for each thread.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # no Linux
        return
    import resource  # noqa: PLC0415  not there on Windows

    has = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    limit = has * 1024 + memory_bytes + _STACKS_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
