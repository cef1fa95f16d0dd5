"""The folder in which an import writes, beside where its model goes; nobody else's business."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STAGING: Final = ".nerve-import-"
"""A repository's scan passes over names with a dot in front, so a server does not see it."""


@contextlib.contextmanager
def staging_folder(repository: Path) -> Iterator[Path]:
    """An empty folder in the repository, removed in the end; first those of imports that were killed.

    Whoever writes in one holds a lock on it, which goes with the process, however it ends.

    Raises:
        OSError: none can be made.
    """
    for left in repository.glob(f"{STAGING}*"):
        with _locked(left) as is_left:
            if is_left:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=repository))
        with _locked(folder) as is_ours:
            if is_ours is False:
                continue  # another import took it for one that is left, and removes it
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool | None]:
    """Hold the folder's lock; False if somebody else does, None where there are no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it is gone, or none that we made
        yield False
        return
    try:
        yield _lock(folder, descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path, descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without them
        return None
