"""Which store keeps requests that are answered later, by what the server is set to."""

from __future__ import annotations

from pathlib import Path

from nerve.config.server import ServerConfig
from nerve.errors import StoreUnavailable
from nerve.jobs.limits import Limits
from nerve.jobs.records import JobStore


def new_job_store(config: ServerConfig) -> JobStore:
    """The store of `config.async_store`, not opened yet. Drivers of the other kind are not imported.

    Raises:
        StoreUnavailable: it is in PostgreSQL, and its driver is not installed.
        ValueError: none is set.
    """
    where, limits = config.async_store, Limits.of(config)
    if where is None:
        raise ValueError("there is no store for async requests: async_store is not set")
    if "://" in where:
        try:
            from nerve.jobs.postgres_store import PostgresJobStore  # noqa: PLC0415  wants its driver
        except ImportError as error:
            raise StoreUnavailable(
                f"{where.partition('://')[0]}://…",
                "this needs the driver of PostgreSQL: pip install 'nerve-server[postgres]' "
                f"({error})",
            ) from error
        return PostgresJobStore(where, limits)
    from nerve.jobs.sqlite import SqliteJobStore  # noqa: PLC0415

    return SqliteJobStore(Path(where), limits)
