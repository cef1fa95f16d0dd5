"""The file of a store in SQLite: that it is this server's alone, how it is set up, and its schema.

Knows no driver: `sqlite` opens the connection.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from nerve.errors import StoreUnavailable
from nerve.jobs.sqlite_tables import APPLICATION_ID, MIGRATIONS

_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",  # what was committed outlives a loss of power
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
)


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int:
        """Rows that it changed."""

    def fetchone(self) -> Any:  # noqa: ANN401
        """The next row, None after the last."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Database(Protocol):
    """A connection to SQLite."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Do a statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        """Do a statement for each of these."""


def lock(path: Path, shown: str) -> int | None:
    """Make this process the only server that has the file at `path`; on Windows, nothing is done.

    Returns:
        The number of an open file beside it, which is to be closed when the store is. It is this
        process's until then or until it ends, however it does.

    Raises:
        StoreUnavailable: another server has it, as which `shown` is told.
        OSError: the lock cannot be made.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415  not on Windows

    beside = path.with_name(path.name + ".lock")
    number = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(number)
        if isinstance(error, BlockingIOError):
            detail = "another server has it; a database can be shared: postgresql://…"
            raise StoreUnavailable(shown, detail) from None
        raise
    return number


def set_up(db: Database, shown: str) -> None:
    """Prepare a new connection.

    Raises:
        StoreUnavailable: the file system has no shared memory, as one in the network.
    """
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table
    (journal,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != "wal":
        raise StoreUnavailable(
            shown, f"its file system cannot keep a write-ahead log (SQLite uses {journal!r} there)"
        )
    for setting in _SETTINGS:
        db.execute(setting).fetchall()


def migrate(db: Database, shown: str) -> None:
    """Bring the tables to the newest version, all or none.

    Raises:
        StoreUnavailable: they are another program's, or a newer server's.
    """
    (program,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if program != APPLICATION_ID and (tables or version):
        raise StoreUnavailable(shown, "it is a database of another program")
    newest = len(MIGRATIONS)
    if version > newest:
        raise StoreUnavailable(
            shown, f"a newer server made it: its schema is {version}, this one's {newest}"
        )
    if version == newest:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in (each for after in MIGRATIONS[version:] for each in after):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {newest}")
    db.execute("COMMIT")
