"""Requests that are answered later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from nerve.config.settings.kinds import Network, Settings, job_store
from nerve.config.settings.limits import Seconds


class AsyncSettings(Settings):
    """Async inference."""

    async_store: Annotated[str, AfterValidator(job_store)] | None = None
    """Where requests that are answered later are kept: a file (SQLite) of this server's own, or
    postgresql://… for several servers. By default there is no async inference."""
    async_retention_s: Seconds = 3600.0
    """How long a request and its result are kept once it has ended."""
    async_max_queued: Annotated[int, Field(ge=1)] = 100_000
    """Most requests that wait; more are refused."""
    async_max_stored_bytes: Annotated[int, Field(ge=2**20)] = 4 * 2**30
    """Most bytes of requests and results that are kept; at that, more requests are refused."""
    async_max_body_bytes: Annotated[int, Field(ge=1024)] = 256 * 2**10
    """Largest request, after decompression."""
    async_max_in_progress: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most requests that this server works on at the same time; a model has at most three quarters of
    them."""
    async_timeout_s: Seconds = 3600.0
    """Longest time that one attempt may take."""
    async_webhook_secrets_file: Path | None = None
    """Secrets that sign messages to webhooks, one a line: with two, while receivers change to a new one,
    both sign. A changed file is taken up without a restart. By default messages are not signed."""
    async_webhook_networks: list[Network] = []  # noqa: RUF012  pydantic copies it
    """Networks beside the public internet, as 10.0.0.0/8, where webhooks may be, also by plain http.
    By default none."""
    async_webhook_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """Most times that a message is sent; 2 s pass after the first, then twice as long each time."""
    async_webhook_timeout_s: Seconds = 10.0
    """Longest time that a webhook may take for a message."""
    async_webhook_connections: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most messages that are sent at the same time."""
