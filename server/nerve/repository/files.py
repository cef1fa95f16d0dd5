"""Opening files that others may replace, cut short or turn into something else at any moment.

What a file's content means is the business of the modules that read it.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from nerve.errors import shown

_LFS_POINTER = b"version https://git-lfs"


class FileId(NamedTuple):
    """What a file system tells of a file; equal for one file that nobody has written to."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    """When content, name, links or permissions last changed; nobody can set it (ctime)."""


def file_id(status: os.stat_result) -> FileId:
    """The part of a `stat` that says whether a file is still the same."""
    return FileId(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def open_regular(path: Path) -> FileIO:
    """Open a file for reading, unbuffered, never waiting: a pipe would wait for its writer.

    Raises:
        OSError: it cannot be read, or is a folder, pipe, socket or device.
    """
    file = open(path, "rb", buffering=0, opener=_never_waiting)  # noqa: SIM115 - the caller's
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def is_lfs_pointer(file: FileIO) -> bool:
    """Whether a file only stands for one that Git LFS keeps. Moves the file's position."""
    file.seek(0)
    return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def _never_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def printed(name: str, limit: int = 100) -> str:
    """A file's name as text for a message: in UTF-8 whatever its bytes are, and not too long."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() and len(text) <= limit else shown(text, limit)


def told(error: Exception) -> str:
    """Why a file cannot be read, without its path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
