"""The connections of a store in PostgreSQL: made, checked and replaced, and what is told when they fail.

The only home of psycopg; knows no statement of the store but those that make its tables.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from nerve.errors import StoreFailed, StoreUnavailable
from nerve.jobs import postgres_sql as sql

Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
Pool = AsyncConnectionPool[Connection]

_CONNECTIONS: Final = 8
_CONNECTION_WAIT_S: Final = 5.0
"""Longest wait for a connection, also while the database is away."""
_LONGEST_S: Final = 15.0
"""Longest time that a method may take; leases should be longer."""
_DEFAULTS: Final = {
    "connect_timeout": 10,
    "application_name": "nerve",
    "keepalives_idle": 30,
    "tcp_user_timeout": 30_000,
}
"""What the URL does not say."""


class Database:
    """A pool of connections; statements are transactions of their own."""

    def __init__(self, url: str) -> None:
        """Nothing is opened yet."""
        self._url = url
        self._shown = "postgresql://…"
        self._secrets: list[str] = []
        self._pool: Pool | None = None
        self._doubtful: set[str] = set()

    async def open(self) -> None:
        """Connect, and make the tables if they are not there.

        Raises:
            StoreUnavailable: the database cannot be used.
        """
        parameters = self._parameters()
        try:
            async with asyncio.timeout(_LONGEST_S):
                first = await psycopg.AsyncConnection.connect(**parameters)
                async with first, first.transaction():
                    await self._migrate(first)
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise self._unavailable(self._told(error)) from None
        self._pool = AsyncConnectionPool(
            kwargs=parameters,
            min_size=1,
            max_size=_CONNECTIONS,
            open=False,
            timeout=_CONNECTION_WAIT_S,
            check=self._check,
            reconnect_timeout=_CONNECTION_WAIT_S,
            name="async-store",
        )
        await self._pool.open()

    async def aclose(self) -> None:
        """End the connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def change(self, statement: str, **values: object) -> int:
        """The number of rows that a statement changed."""
        async with self._connection() as db:
            return (await db.execute(statement, values)).rowcount

    async def rows(self, statement: str, **values: object) -> list[Row]:
        """All rows that a statement gives."""
        async with self._connection() as db:
            return await (await db.execute(statement, values)).fetchall()

    async def claimed(self, statement: str, **values: object) -> list[Row]:
        """Rows that were taken; if that is not heard of, their lease ends and `recover` finds them."""
        claim_id = uuid4().hex
        async with self._connection() as db:
            self._doubtful.add(claim_id)
            rows = await (await db.execute(statement, {**values, "claim_id": claim_id})).fetchall()
            self._doubtful.discard(claim_id)
            return rows

    async def first_then(
        self, statement: str, then: Callable[[Row], str | None], **values: object
    ) -> Row | None:
        """The first row of a statement, after what that row asks for has been done as well."""
        async with self._connection() as db, db.transaction():
            row = await (await db.execute(statement, values)).fetchone()
            if row is not None and (more := then(row)) is not None:
                await db.execute(more, values)
            return row

    def doubtful(self) -> list[str]:
        """Claims whose outcome was not heard of, or not yet: if they were made, nobody may know."""
        return list(self._doubtful)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection for a transaction.

        Raises:
            StoreFailed: there is none, or what was done with it failed.
        """
        if self._pool is None:
            raise StoreFailed("it is not open")
        try:
            async with asyncio.timeout(_LONGEST_S), self._pool.connection() as db:
                yield db
        except TimeoutError:
            raise StoreFailed(f"it did not answer within {_LONGEST_S:g} s") from None
        # ValueError: a text that cannot be written as UTF-8
        except (psycopg.Error, OSError, ValueError) as error:
            raise StoreFailed(self._told(error)) from None

    async def _check(self, db: Connection) -> None:
        """Find out before its use that the database has ended an idle connection.

        Such a one has something to read; only then it is asked, so that this costs nothing else.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(db.fileno(), selectors.EVENT_READ)
            ready = selector.select(0)
        if ready:
            if self._pool is not None:
                await self._pool.check()  # one by one, the pool would wait longer after each
            await AsyncConnectionPool.check_connection(db)

    async def _migrate(self, db: Connection) -> None:
        """Bring the tables to the newest version, all or none; other servers wait meanwhile."""
        newest = len(sql.MIGRATIONS)
        await db.execute("SELECT pg_advisory_xact_lock(%s)", (sql.LOCK,))
        found = await (await db.execute("SELECT to_regclass('nerve_schema')")).fetchone()
        if found == (None,):
            await db.execute("CREATE TABLE nerve_schema (version integer NOT NULL)")
            await db.execute("INSERT INTO nerve_schema VALUES (0)")
        row = await (await db.execute("SELECT max(version) FROM nerve_schema")).fetchone()
        version: int = row[0] if row else 0
        if version > newest:
            raise self._unavailable(
                f"a newer server made its tables: their schema is {version}, this one's {newest}"
            )
        for statement in (each for after in sql.MIGRATIONS[version:] for each in after):
            await db.execute(statement)
        if version < newest:
            await db.execute("UPDATE nerve_schema SET version = %s", (newest,))

    def _parameters(self) -> dict[str, Any]:
        try:
            given = conninfo_to_dict(self._url)
        except psycopg.Error:  # says what it did not understand, which may be the password
            raise self._unavailable(
                "it is no URL of a PostgreSQL database, "
                "as postgresql://user:password@host:port/database is"
            ) from None
        self._secrets = [
            str(given[each]) for each in ("password", "sslpassword") if given.get(each)
        ]
        self._shown = _shown(given)
        return {**_DEFAULTS, **given, "autocommit": True, "prepare_threshold": None}

    def _told(self, error: Exception) -> str:
        """The first line of an error, which tells of no values, without passwords."""
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _unavailable(self, detail: str) -> StoreUnavailable:
        return StoreUnavailable(self._shown, detail)


def _shown(given: Mapping[str, Any]) -> str:
    """A database without what may be secret."""
    user, host, port = (given.get(each) for each in ("user", "host", "port"))
    place = f"{host or ''}{f':{port}' if port else ''}/{given.get('dbname', '')}"
    return f"postgresql://{f'{user}@' if user else ''}{place}"
