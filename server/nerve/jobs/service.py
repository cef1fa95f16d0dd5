"""Requests that are answered later, as the front ends see them."""

from __future__ import annotations

import logging
import os
import socket
import time
from uuid import uuid4

from nerve.config.server import ServerConfig
from nerve.errors import (
    AsyncRequestNotFound,
    AsyncResultMissing,
    ServerStopping,
    StoreFailed,
    StoreUnavailable,
)
from nerve.exchange import nobodys
from nerve.jobs.courier import Courier
from nerve.jobs.housekeeping import Housekeeping
from nerve.jobs.pace import Pace
from nerve.jobs.records import Counts, JobRecord, JobStore, NewJob, Status
from nerve.jobs.runner import Answered, Runner, Work
from nerve.jobs.signing import new_secrets
from nerve.jobs.webhook import Webhooks
from nerve.metrics.jobs import JobMetrics

__all__ = ["Answered", "JobService", "Work"]

log = logging.getLogger(__name__)


class JobService:
    """Takes requests, has them worked on and their answers sent, and tells of them.

    `start`, then `drain` and `aclose`.
    """

    def __init__(
        self,
        store: JobStore,
        config: ServerConfig,
        metrics: JobMetrics,
        *,
        work: Work,
        pace: Pace | None = None,
    ) -> None:
        """`work` makes one attempt.

        Raises:
            ConfigInvalid: the file of the webhooks' secrets cannot be used.
        """
        self._store, self._config, self._metrics = store, config, metrics
        pace = pace or Pace()
        # Two processes may have the same number, one after the other or in two containers.
        name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"
        self._owners = owner, sender = f"{name}:work", f"{name}:webhooks"
        self._courier = Courier(
            store,
            Webhooks(
                config.async_webhook_networks,
                timeout_s=config.async_webhook_timeout_s,
                connections=config.async_webhook_connections,
            ),
            new_secrets(config.async_webhook_secrets_file),
            metrics,
            owner=sender,
            attempts=config.async_webhook_attempts,
            connections=config.async_webhook_connections,
            pace=pace,
        )
        self._runner = Runner(
            store,
            work,
            metrics,
            owner=owner,
            limit=config.async_max_in_progress,
            timeout_s=config.async_timeout_s,
            ended=self._courier.wake,
            pace=pace,
        )
        self._housekeeping = Housekeeping(
            store,
            metrics,
            owners=frozenset(self._owners),
            retention_s=config.async_retention_s,
            holding=lambda: self._runner.busy or self._courier.busy,
            recovered=self._recovered,
            pace=pace,
        )
        self._stopping = self._open = False

    async def start(self) -> None:
        """Open the store, take up what was left behind, and begin.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        await self._store.open()
        try:
            await self._housekeeping.take_up()
        except StoreFailed as error:
            await self._store.aclose()
            raise StoreUnavailable(_where(self._config), error.detail) from error
        self._open = True
        self._metrics.started()
        with nobodys():
            self._housekeeping.start()
            self._courier.start()
            self._runner.start()

    def drain(self) -> None:
        """Take no more, and begin nothing more; what is in progress goes on."""
        self._stopping = True
        self._runner.drain()

    async def aclose(self, timeout_s: float) -> None:
        """Wait so long for what is in progress, give back what is left, and close the store."""
        self.drain()
        if not self._open:
            return
        self._open = False
        until = time.monotonic() + timeout_s
        await self._runner.aclose(timeout_s)
        await self._courier.aclose(max(0.0, until - time.monotonic()))
        await self._housekeeping.aclose()
        try:
            for owner in self._owners:
                await self._store.release(owner)
        except StoreFailed as error:  # others, or the next start, find it when its lease is over
            log.warning("what was in progress could not be given back: %s", error)
        await self._store.aclose()

    async def submit(self, job: NewJob) -> None:
        """Accept a request; it is kept when this returns.

        Raises:
            AsyncQueueFull: too many are waiting, or too many bytes are kept.
            ServerStopping: the server ends.
            StoreFailed: it could not be kept.
        """
        if self._stopping or not self._open:
            raise ServerStopping
        await self._store.add(job)
        self._runner.wake()

    async def status(self, request_id: str, key: str | None) -> JobRecord:
        """What is known of a request that came with this key.

        Raises:
            AsyncRequestNotFound: there is none; that of another key is none.
            StoreFailed: the store cannot be read.
        """
        return self._owned(request_id, key, await self._store.record(request_id))

    async def cancel(self, request_id: str, key: str | None) -> tuple[bool, JobRecord]:
        """Cancel a request that is queued. Whether it was canceled, and what it is then.

        Raises:
            AsyncRequestNotFound, StoreFailed: as in `status`.
        """
        await self.status(request_id, key)
        before = self._owned(request_id, key, await self._store.cancel(request_id, time.time()))
        canceled = before.status is Status.QUEUED
        if canceled:
            self._metrics.finished(Status.CANCELED)
        return canceled, await self.status(request_id, key)

    async def result(self, request_id: str, key: str | None) -> bytes:
        """The JSON of its answer.

        Raises:
            AsyncRequestNotFound, StoreFailed: as in `status`.
            AsyncResultMissing: it has none, or none yet.
        """
        record = await self.status(request_id, key)
        result = await self._store.result(request_id)
        if result is None:
            detail = record.errors[-1].message if record.errors else ""
            raise AsyncResultMissing(request_id, record.status, detail)
        return result

    async def counts(self, model: str | None) -> Counts:
        """How many wait and are worked on, of a model or (None) of all.

        Raises:
            StoreFailed: the store cannot be read.
        """
        return await self._store.counts(model)

    def _owned(self, request_id: str, key: str | None, record: JobRecord | None) -> JobRecord:
        if record is None or record.key != key:
            raise AsyncRequestNotFound(request_id, self._config.async_retention_s)
        return record

    def _recovered(self) -> None:
        """Requests have come up, or ended, in the store."""
        self._runner.look_for_suspects()
        self._runner.wake()
        self._courier.wake()


def _where(config: ServerConfig) -> str:
    """The store as it was given, without a password."""
    given = config.async_store or ""
    return given.rpartition("@")[2].partition("?")[0] if "://" in given else given
