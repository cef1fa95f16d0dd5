"""The tables of a store in SQLite, as each version of the schema made them. Text only.

Times are seconds since 1970. What is looked for often is found by an index that holds only such rows,
so that nothing slows down with what else is kept.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x4E524A51
"""In the header of the file: which program it is of ("NRJQ")."""

_FIRST: Final = (
    # `owner` has claimed it: the request while it is IN_PROGRESS, its message to the webhook once it
    # has ended. `not_before` is set while a retry waits for its time, `send_at` while a message is to be
    # sent, `settled_at` once nothing is left to do. Bodies and results are apart, as a row is written
    # anew with every change.
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        key TEXT,
        model TEXT NOT NULL,
        asked_version TEXT,
        version TEXT NOT NULL DEFAULT '',
        webhook TEXT,
        priority INTEGER NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        max_attempts INTEGER NOT NULL,
        initial_delay_s REAL NOT NULL,
        max_delay_s REAL NOT NULL,
        status TEXT NOT NULL DEFAULT 'QUEUED',
        status_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        interruptions INTEGER NOT NULL DEFAULT 0,
        alone INTEGER NOT NULL DEFAULT 0,
        not_before REAL,
        errors TEXT NOT NULL DEFAULT '[]',
        webhook_status TEXT NOT NULL,
        webhook_error TEXT,
        send_at REAL,
        deliveries INTEGER NOT NULL DEFAULT 0,
        finished_at REAL,
        settled_at REAL,
        owner TEXT,
        held_bytes INTEGER NOT NULL
    )
    """,
    "CREATE TABLE bodies (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE results (seq INTEGER PRIMARY KEY, result BLOB NOT NULL)",
    """
    CREATE INDEX jobs_ready ON jobs (model, alone, priority, created_at)
    WHERE status = 'QUEUED' AND not_before IS NULL
    """,
    """
    CREATE INDEX jobs_delayed ON jobs (not_before)
    WHERE status = 'QUEUED' AND not_before IS NOT NULL
    """,
    "CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE status = 'QUEUED' AND attempts = 0",
    "CREATE INDEX jobs_owned ON jobs (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX jobs_sending ON jobs (send_at) WHERE send_at IS NOT NULL",
    "CREATE INDEX jobs_settled ON jobs (settled_at) WHERE settled_at IS NOT NULL",
    # Kept up by triggers, so that they are exact whatever happens, also after a restart.
    """
    CREATE TABLE totals (
        model TEXT PRIMARY KEY,
        queued INTEGER NOT NULL,
        in_progress INTEGER NOT NULL,
        kept INTEGER NOT NULL,
        held_bytes INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
        INSERT OR IGNORE INTO totals VALUES (NEW.model, 0, 0, 0, 0);
        UPDATE totals SET
            queued = queued + (NEW.status = 'QUEUED'),
            in_progress = in_progress + (NEW.status = 'IN_PROGRESS'),
            kept = kept + 1,
            held_bytes = held_bytes + NEW.held_bytes
        WHERE model = NEW.model;
    END
    """,
    """
    CREATE TRIGGER jobs_updated AFTER UPDATE OF status, held_bytes ON jobs BEGIN
        UPDATE totals SET
            queued = queued + (NEW.status = 'QUEUED') - (OLD.status = 'QUEUED'),
            in_progress =
                in_progress + (NEW.status = 'IN_PROGRESS') - (OLD.status = 'IN_PROGRESS'),
            held_bytes = held_bytes + NEW.held_bytes - OLD.held_bytes
        WHERE model = NEW.model;
    END
    """,
    """
    CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
        UPDATE totals SET
            queued = queued - (OLD.status = 'QUEUED'),
            in_progress = in_progress - (OLD.status = 'IN_PROGRESS'),
            kept = kept - 1,
            held_bytes = held_bytes - OLD.held_bytes
        WHERE model = OLD.model;
        DELETE FROM totals WHERE model = OLD.model AND kept = 0;
    END
    """,
)

MIGRATIONS: Final = (_FIRST,)
"""Statements that make each version of the schema out of the one before. Never changed once released."""
