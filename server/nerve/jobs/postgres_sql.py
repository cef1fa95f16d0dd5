"""The tables of a store in PostgreSQL, and the statements on them. Text only.

Times are seconds since 1970 by the clocks of the servers, but leases: those by the database's clock,
which is the same for all. `%(now)s` is a server's clock.
"""

from __future__ import annotations

from typing import Final

LOCK: Final = 0x4E524A51
"""Who makes or changes the tables holds this advisory lock."""
AT_ONCE: Final = 1000
"""Most requests that one statement ends, or wakes from their wait for a retry."""
_SPARE: Final = 32
"""So many servers can claim at the same moment, one request each, and none has to look again."""
_CLOCK: Final = "extract(epoch FROM clock_timestamp())::float8"

# As in SQLite, see sqlite_tables; but body and result are here, as large values are kept apart anyway.
# `claim_id` tells which claim a row was taken by.
_JOBS: Final = """
CREATE TABLE nerve_jobs (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id text NOT NULL UNIQUE,
    key text,
    model text NOT NULL,
    asked_version text,
    version text NOT NULL DEFAULT '',
    body bytea,
    result bytea,
    webhook text,
    priority integer NOT NULL,
    created_at float8 NOT NULL,
    expires_at float8 NOT NULL,
    max_attempts integer NOT NULL,
    initial_delay_s float8 NOT NULL,
    max_delay_s float8 NOT NULL,
    status text NOT NULL DEFAULT 'QUEUED',
    status_at float8 NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    interruptions integer NOT NULL DEFAULT 0,
    alone boolean NOT NULL DEFAULT false,
    not_before float8,
    errors text NOT NULL DEFAULT '[]',
    webhook_status text NOT NULL,
    webhook_error text,
    send_at float8,
    deliveries integer NOT NULL DEFAULT 0,
    finished_at float8,
    settled_at float8,
    owner text,
    claim_id text,
    lease_until float8,
    held_bytes bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02)
"""
# One row a model would be written by every transaction, one after the other; of these, each connection
# has its own, as a rule.
_TOTALS: Final = """
CREATE TABLE nerve_totals (
    slot integer NOT NULL,
    model text NOT NULL,
    queued bigint NOT NULL,
    in_progress bigint NOT NULL,
    kept bigint NOT NULL,
    held_bytes bigint NOT NULL,
    PRIMARY KEY (slot, model)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)
"""
_PLUS: Final = "SELECT 1 AS n, model, status, held_bytes FROM after"
_MINUS: Final = "SELECT -1 AS n, model, status, held_bytes FROM before"


def _counted(event: str, referencing: str, changes: str) -> tuple[str, str]:
    """A trigger that keeps the totals, for one kind of statement on nerve_jobs."""
    function = f"""
    CREATE FUNCTION nerve_jobs_{event}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO nerve_totals AS totals
        SELECT pg_backend_pid() % 16, * FROM (
            SELECT model, sum(n * (status = 'QUEUED')::int) AS queued,
                sum(n * (status = 'IN_PROGRESS')::int) AS in_progress, sum(n) AS kept,
                sum(n * held_bytes) AS held_bytes
            FROM ({changes}) AS changes GROUP BY model ORDER BY model
        ) AS sums
        WHERE (queued, in_progress, kept, held_bytes) <> (0, 0, 0, 0)
        ON CONFLICT (slot, model) DO UPDATE SET
            queued = totals.queued + excluded.queued,
            in_progress = totals.in_progress + excluded.in_progress,
            kept = totals.kept + excluded.kept,
            held_bytes = totals.held_bytes + excluded.held_bytes;
        RETURN NULL;
    END $$
    """  # noqa: S608  constants
    trigger = f"""
    CREATE TRIGGER nerve_jobs_{event} AFTER {event} ON nerve_jobs REFERENCING {referencing}
    FOR EACH STATEMENT EXECUTE FUNCTION nerve_jobs_{event}()
    """
    return function, trigger


_FIRST: Final = (
    _JOBS,
    """
    CREATE INDEX nerve_jobs_ready ON nerve_jobs (model, alone, priority, created_at, seq)
    WHERE status = 'QUEUED' AND not_before IS NULL
    """,
    """
    CREATE INDEX nerve_jobs_delayed ON nerve_jobs (not_before)
    WHERE status = 'QUEUED' AND not_before IS NOT NULL
    """,
    """
    CREATE INDEX nerve_jobs_expiring ON nerve_jobs (expires_at)
    WHERE status = 'QUEUED' AND attempts = 0
    """,
    "CREATE INDEX nerve_jobs_owned ON nerve_jobs (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX nerve_jobs_sending ON nerve_jobs (send_at, seq) WHERE send_at IS NOT NULL",
    "CREATE INDEX nerve_jobs_settled ON nerve_jobs (settled_at) WHERE settled_at IS NOT NULL",
    _TOTALS,
    *_counted("insert", "NEW TABLE AS after", _PLUS),
    *_counted("update", "OLD TABLE AS before NEW TABLE AS after", f"{_PLUS} UNION ALL {_MINUS}"),
    *_counted("delete", "OLD TABLE AS before", _MINUS),
)
MIGRATIONS: Final = (_FIRST,)
"""Statements that make each version of the tables out of the one before. Never changed once released."""

ADD: Final = """
INSERT INTO nerve_jobs (request_id, key, model, asked_version, body, webhook, priority, created_at,
    expires_at, max_attempts, initial_delay_s, max_delay_s, status_at, webhook_status, held_bytes)
SELECT %(request_id)s, %(key)s, %(model)s, %(version)s, %(body)s, %(webhook)s, %(priority)s,
    %(created_at)s, %(expires_at)s, %(max_attempts)s, %(initial_delay_s)s, %(max_delay_s)s,
    %(created_at)s, %(webhook_status)s, %(held_bytes)s
FROM (SELECT coalesce(sum(queued), 0) AS queued, coalesce(sum(held_bytes), 0) AS held_bytes
    FROM nerve_totals) AS totals
WHERE queued < %(max_queued)s AND held_bytes + %(held_bytes)s <= %(max_stored_bytes)s
"""
_READY: Final = """
status = 'QUEUED' AND not_before IS NULL AND alone = %(alone)s
    AND (attempts > 0 OR expires_at > %(now)s)
"""
WAKE: Final = f"""
UPDATE nerve_jobs SET not_before = NULL WHERE seq IN (
    SELECT seq FROM nerve_jobs WHERE status = 'QUEUED' AND not_before <= %(now)s
    ORDER BY not_before LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED)
"""  # noqa: S608  constants
# An index of all models' requests would have to be read from its beginning, past those to models that
# are left out, which may be many. Of each other model the first are looked at, some more than are
# wanted, as other servers may be about to take those; then only what is taken is locked, if it is still
# queued. That is told by other columns, and the rows are in an array, or a planner without statistics
# would read all that is queued, or kept.
CLAIM: Final = f"""
WITH mine AS (
    SELECT seq FROM nerve_jobs WHERE seq = ANY(ARRAY(
        SELECT ready.seq FROM (
            SELECT model FROM nerve_totals WHERE model <> ALL(%(without)s)
            GROUP BY model HAVING sum(queued) > 0) AS waiting
        CROSS JOIN LATERAL (
            SELECT seq FROM nerve_jobs WHERE model = waiting.model AND {_READY}
            ORDER BY priority, created_at, seq LIMIT %(limit)s + {_SPARE}) AS ready))
        AND owner IS NULL AND finished_at IS NULL AND not_before IS NULL AND alone = %(alone)s
    ORDER BY priority, created_at, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE nerve_jobs AS jobs SET status = 'IN_PROGRESS', status_at = %(now)s, attempts = attempts + 1,
    owner = %(owner)s, claim_id = %(claim_id)s, lease_until = {_CLOCK} + %(lease_s)s
FROM mine WHERE jobs.seq = mine.seq
RETURNING request_id, key, model, asked_version, body, webhook, priority, created_at, expires_at,
    max_attempts, initial_delay_s, max_delay_s, attempts, interruptions, jobs.seq
"""  # noqa: S608  constants
FINISH: Final = """
UPDATE nerve_jobs SET status = %(status)s, status_at = %(now)s, finished_at = %(now)s,
    version = %(version)s, errors = %(errors)s, body = NULL, result = %(result)s,
    held_bytes = %(held_bytes)s, owner = NULL,
    send_at = CASE WHEN webhook IS NOT NULL THEN %(now)s END,
    settled_at = CASE WHEN webhook IS NULL THEN %(now)s END
WHERE request_id = %(request_id)s AND owner = %(owner)s AND status = 'IN_PROGRESS'
"""
RETRY: Final = """
UPDATE nerve_jobs SET status = 'QUEUED', status_at = %(now)s, owner = NULL,
    not_before = %(not_before)s, errors = %(errors)s, attempts = attempts - %(uncounted)s
WHERE request_id = %(request_id)s AND owner = %(owner)s AND status = 'IN_PROGRESS'
"""
RENEW: Final = f"""
UPDATE nerve_jobs SET lease_until = {_CLOCK} + %(lease_s)s
WHERE owner = %(owner)s AND claim_id <> ALL(%(doubtful)s)
"""  # noqa: S608  constants
RELEASE: Final = """
UPDATE nerve_jobs SET owner = NULL,
    status_at = CASE status WHEN 'IN_PROGRESS' THEN %(now)s ELSE status_at END,
    attempts = attempts - (status = 'IN_PROGRESS')::int,
    status = CASE status WHEN 'IN_PROGRESS' THEN 'QUEUED' ELSE status END
WHERE owner = %(owner)s
"""
_GONE: Final = f"""
owner IS NOT NULL AND lease_until < {_CLOCK}
AND (owner <> ALL(%(owners)s) OR claim_id = ANY(%(doubtful)s))
"""
RECOVER: Final = f"""
WITH gone AS (
    SELECT seq, interruptions + 1 AS interrupted, interruptions >= %(max_interruptions)s AS poison
    FROM nerve_jobs WHERE {_GONE} AND status = 'IN_PROGRESS' FOR UPDATE SKIP LOCKED)
UPDATE nerve_jobs AS jobs SET owner = NULL, status_at = %(now)s, attempts = attempts - 1,
    interruptions = interrupted, alone = interrupted > 1,
    status = CASE WHEN poison THEN 'FAILED' ELSE 'QUEUED' END,
    errors = CASE WHEN poison THEN replace(%(errors)s, '{{}}', interrupted::text) ELSE errors END,
    finished_at = CASE WHEN poison THEN %(now)s::float8 END,
    body = CASE WHEN NOT poison THEN body END,
    held_bytes = CASE WHEN poison THEN 0 ELSE held_bytes END,
    send_at = CASE WHEN poison AND webhook IS NOT NULL THEN %(now)s::float8 END,
    settled_at = CASE WHEN poison AND webhook IS NULL THEN %(now)s::float8 END
FROM gone WHERE jobs.seq = gone.seq
RETURNING poison
"""  # noqa: S608  constants
RECOVER_MESSAGES: Final = f"""
UPDATE nerve_jobs SET owner = NULL WHERE seq IN (
    SELECT seq FROM nerve_jobs WHERE {_GONE} AND send_at IS NOT NULL FOR UPDATE SKIP LOCKED)
"""  # noqa: S608  constants
EXPIRE: Final = f"""
UPDATE nerve_jobs SET status = 'EXPIRED', status_at = %(now)s, finished_at = %(now)s, body = NULL,
    held_bytes = 0, not_before = NULL,
    errors = CASE errors WHEN '[]' THEN '[' ELSE left(errors, -1) || ',' END || %(error)s || ']',
    send_at = CASE WHEN webhook IS NOT NULL THEN %(now)s END,
    settled_at = CASE WHEN webhook IS NULL THEN %(now)s END
WHERE seq IN (
    SELECT seq FROM nerve_jobs WHERE status = 'QUEUED' AND attempts = 0 AND expires_at <= %(now)s
    ORDER BY expires_at LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED)
"""  # noqa: S608  constants
_VERSION: Final = "CASE version WHEN '' THEN coalesce(asked_version, '') ELSE version END"
RECORD: Final = f"""
SELECT request_id, key, model, {_VERSION}, status, webhook_status, created_at, status_at, errors,
    webhook_error
FROM nerve_jobs WHERE request_id = %(request_id)s
"""  # noqa: S608  constants
CANCEL: Final = """
UPDATE nerve_jobs SET status = 'CANCELED', status_at = %(now)s, finished_at = %(now)s,
    settled_at = %(now)s, not_before = NULL, body = NULL, held_bytes = 0,
    webhook_status = CASE WHEN webhook IS NULL THEN webhook_status ELSE 'CANCELED' END
WHERE request_id = %(request_id)s
"""
RESULT: Final = "SELECT result FROM nerve_jobs WHERE request_id = %(request_id)s"
COUNTS: Final = """
SELECT coalesce(sum(queued), 0)::bigint, coalesce(sum(in_progress), 0)::bigint,
    coalesce(sum(kept), 0)::bigint, coalesce(sum(held_bytes), 0)::bigint
FROM nerve_totals WHERE %(model)s::text IS NULL OR model = %(model)s
"""
CLAIM_MESSAGES: Final = f"""
WITH mine AS (
    SELECT seq FROM nerve_jobs WHERE send_at <= %(now)s AND owner IS NULL
    ORDER BY send_at, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE nerve_jobs AS jobs SET owner = %(owner)s, claim_id = %(claim_id)s,
    lease_until = {_CLOCK} + %(lease_s)s
FROM mine WHERE jobs.seq = mine.seq
RETURNING request_id, model, {_VERSION}, webhook, status, finished_at, result, errors, deliveries,
    send_at, jobs.seq
"""  # noqa: S608  constants
DELIVERED: Final = """
UPDATE nerve_jobs SET webhook_status = 'SUCCEEDED', webhook_error = NULL, send_at = NULL,
    settled_at = %(now)s, deliveries = deliveries + 1, owner = NULL
WHERE request_id = %(request_id)s AND owner = %(owner)s AND send_at IS NOT NULL
"""
UNDELIVERED: Final = """
UPDATE nerve_jobs SET webhook_error = %(errors)s, owner = NULL,
    deliveries = deliveries + %(counted)s, send_at = %(again_at)s,
    webhook_status = CASE WHEN %(last)s THEN 'FAILED' ELSE webhook_status END,
    settled_at = CASE WHEN %(last)s THEN %(now)s::float8 END,
    status_at = CASE WHEN %(last)s AND status = 'SUCCEEDED' THEN %(now)s ELSE status_at END,
    status = CASE WHEN %(last)s AND status = 'SUCCEEDED' THEN 'WEBHOOK_FAILED' ELSE status END
WHERE request_id = %(request_id)s AND owner = %(owner)s AND send_at IS NOT NULL
"""
# `min` is not always found by the index
NEXT_AT: Final = """
SELECT least(
    (SELECT not_before FROM nerve_jobs WHERE status = 'QUEUED' AND not_before > %(now)s
        ORDER BY not_before LIMIT 1),
    (SELECT expires_at FROM nerve_jobs
        WHERE status = 'QUEUED' AND attempts = 0 AND expires_at > %(now)s
        ORDER BY expires_at LIMIT 1),
    (SELECT send_at FROM nerve_jobs WHERE send_at > %(now)s AND owner IS NULL
        ORDER BY send_at LIMIT 1))
"""
FIRST_SETTLED: Final = """
SELECT (SELECT settled_at FROM nerve_jobs WHERE settled_at IS NOT NULL ORDER BY settled_at LIMIT 1)
"""
SWEEP: Final = """
DELETE FROM nerve_jobs WHERE seq IN (
    SELECT seq FROM nerve_jobs WHERE settled_at < %(before)s ORDER BY settled_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED)
"""
