"""The database of a store in SQLite: whose it is, how it is set up, and its schema.

Knows no driver: `sqlite` opens the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from nerve.errors import NerveError, StoreUnavailable
from nerve.jobs.sqlite_tables import APPLICATION_ID, MIGRATIONS

DatabaseT = TypeVar("DatabaseT")

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


def outcome_of(step: Callable[[DatabaseT], Any], db: DatabaseT) -> Any:  # noqa: ANN401
    """What a step gives, or the error with which it refuses, before anything was written."""
    try:
        return step(db)
    except NerveError as error:
        return error


def inspect(db: Database, shown: str) -> int:
    """See whose tables these are, by reading alone. The version of their schema, 0 without any.

    Raises:
        StoreUnavailable: they are another program's, or a newer server's.
    """
    (program,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if program != APPLICATION_ID and (program or tables or version):
        raise StoreUnavailable(shown, "it is a database of another program")
    newest = len(MIGRATIONS)
    if version > newest:
        raise StoreUnavailable(
            shown, f"a newer server made it: its schema is {version}, this one's {newest}"
        )
    return int(version)


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
        StoreUnavailable: as `inspect` does.
    """
    version, newest = inspect(db, shown), len(MIGRATIONS)
    if version == newest:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in (each for after in MIGRATIONS[version:] for each in after):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {newest}")
    db.execute("COMMIT")
