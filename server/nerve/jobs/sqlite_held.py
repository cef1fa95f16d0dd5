"""The file of a store: that it is this server's alone, and is still there.

Knows no database.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

from nerve.errors import StoreFailed, StoreUnavailable

log = logging.getLogger(__name__)


class HeldFile:
    """A file that no other server has. `take`, then `release`; any thread may `check`."""

    def __init__(self, given: Path) -> None:
        """Nothing is touched yet."""
        self.shown = str(given)
        self.path = given
        """Without links, once it is taken."""
        self._lock: int | None = None
        self._made_lock = self._missed = False
        self._identity: tuple[int, int] | None = None

    def take(self) -> None:
        """Lock it, and make it (mode 0600) if it is not there. `release` it also if that fails.

        Raises:
            StoreUnavailable: it is no file, its folder is not there, it cannot be opened, or another
                server has it.
        """
        try:
            self._take()
        except OSError as error:
            detail = f"{error.strerror}: {error.filename or self.path}"
            raise StoreUnavailable(self.shown, detail) from error

    def check(self) -> None:
        """See that its path still leads to it; what is written to it would be lost otherwise.

        Raises:
            StoreFailed: it does not; the log tells so once.
        """
        try:
            found = _identity(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is not None and found == self._identity:
            self._missed = False
            return
        fault = (
            f"the file {self.path} has been {'replaced' if found else 'removed'}; "
            "restart the server to go on with what is there"
        )
        if not self._missed:
            self._missed = True
            log.error("no more async requests are taken: %s", fault)
        raise StoreFailed(fault)

    def uri(self, mode: str) -> str:
        """Its address for SQLite, to read ("ro") or to write ("rw"); neither makes it."""
        return f"{self.path.as_uri()}?mode={mode}"

    def release(self, *, refused: bool = False) -> None:
        """Another server may have it. `refused`: it is not used, so no lock of ours is left there."""
        number, self._lock = self._lock, None
        if number is None:
            return
        if refused and self._made_lock:  # while it is held: it is nobody else's
            _beside(self.path).unlink(missing_ok=True)
        os.close(number)

    def _take(self) -> None:
        self.path = self.path.expanduser().resolve()
        if not self.path.parent.is_dir():
            raise StoreUnavailable(self.shown, f"there is no folder {self.path.parent}")
        _check_kind(self.path, self.shown)
        self._hold()
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            self._identity = _identity(os.fstat(number))
        finally:
            os.close(number)

    def _hold(self) -> None:
        """Lock a file beside it, until we let it go or this process ends; on Windows, do nothing."""
        if sys.platform == "win32":
            return
        import fcntl  # noqa: PLC0415  not on Windows

        while self._lock is None:
            number, self._made_lock = _open_lock(_beside(self.path))
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(number).st_nlink:  # else one that was refused has just removed it
                    self._lock = number
            except BlockingIOError:
                detail = "another server has it; a database can be shared: postgresql://…"
                raise StoreUnavailable(self.shown, detail) from None
            finally:
                if self._lock is None:
                    os.close(number)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _open_lock(path: Path) -> tuple[int, bool]:
    """An open file, and whether it was made."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL, 0o600), True
    except FileExistsError:
        return os.open(path, flags, 0o600), False


def _check_kind(path: Path, shown: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # it will be made
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise StoreUnavailable(
            shown, f"it is {what}; name a file, which is made if it is not there"
        )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
