"""Requests that are answered later: taken, worked on, told of, and kept through an end of the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from job_tools import (
    QUICK,
    Receiver,
    Worker,
    job_config,
    new_job,
    receiving,
    running,
    until,
)
from nerve.errors import (
    AsyncQueueFull,
    AsyncRequestNotFound,
    AsyncResultMissing,
    ConfigInvalid,
    ServerStopping,
    StoreUnavailable,
)
from nerve.jobs.records import Status, WebhookStatus
from nerve.jobs.service import JobService
from nerve.jobs.stores import new_job_store
from nerve.metrics.jobs import JobMetrics


class Gate:
    """Holds attempts up until it is opened."""

    def __init__(self) -> None:
        self.open, self.reached = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> bytes:
        self.reached.set()
        await self.open.wait()
        return b'[["late"]]'


async def test_a_request_is_worked_on_and_its_result_kept(tmp_path: Path) -> None:
    """Without a webhook: status and result are there to be asked for, by its key alone."""
    async with running(job_config(tmp_path), Worker(b'[["Ada"]]')) as jobs:
        job = new_job(key="ours")
        await jobs.service.submit(job)
        record = await jobs.when(
            job.request_id, lambda each: each.status is Status.SUCCEEDED, key="ours"
        )
        assert (record.version, record.webhook_status) == ("7", WebhookStatus.NO_WEBHOOK_PROVIDED)
        assert await jobs.service.result(job.request_id, "ours") == b'[["Ada"]]'
        for key in (None, "another"):
            with pytest.raises(AsyncRequestNotFound):
                await jobs.service.status(job.request_id, key)
            with pytest.raises(AsyncRequestNotFound):
                await jobs.service.result(job.request_id, key)
            with pytest.raises(AsyncRequestNotFound):
                await jobs.service.cancel(job.request_id, key)

        async def counted() -> bool:
            return jobs.value("nerve_async_kept_bytes") == len(b'[["Ada"]]')

        await until(counted)
    assert jobs.value("nerve_async_finished_total", status="succeeded") == 1
    assert jobs.value("nerve_async_attempts_total", outcome="succeeded") == 1
    assert jobs.value("nerve_async_queue_seconds_count") == 1


async def test_only_what_is_queued_is_canceled(tmp_path: Path) -> None:
    gate = Gate()
    config = job_config(tmp_path, async_max_in_progress=1)
    async with running(config, Worker(gate)) as jobs, receiving(Receiver()) as receiver:
        first, second = new_job(), new_job(webhook=receiver.url)
        await jobs.service.submit(first)
        await gate.reached.wait()
        await jobs.service.submit(second)
        counts = await jobs.service.counts("ner")
        assert (counts.queued, counts.in_progress) == (1, 1)
        with pytest.raises(AsyncResultMissing, match="IN_PROGRESS"):
            await jobs.service.result(first.request_id, None)
        canceled, record = await jobs.service.cancel(first.request_id, None)
        assert (canceled, record.status) == (False, Status.IN_PROGRESS)
        canceled, record = await jobs.service.cancel(second.request_id, None)
        assert (canceled, record.status) == (True, Status.CANCELED)
        assert record.webhook_status is WebhookStatus.CANCELED
        canceled, record = await jobs.service.cancel(second.request_id, None)
        assert (canceled, record.status) == (False, Status.CANCELED)
        gate.open.set()
        assert (await jobs.ended(first.request_id)).status is Status.SUCCEEDED
        assert receiver.got == []
        assert jobs.value("nerve_async_finished_total", status="canceled") == 1


async def test_what_waits_for_too_long_expires_and_its_webhook_is_told(tmp_path: Path) -> None:
    gate = Gate()
    config = job_config(tmp_path, async_max_in_progress=1)
    async with running(config, Worker(gate)) as jobs, receiving(Receiver()) as receiver:
        await jobs.service.submit(new_job())
        await gate.reached.wait()
        late = new_job(webhook=receiver.url, expires_at=time.time() + 0.01)
        await jobs.service.submit(late)
        record = await jobs.ended(late.request_id)
        gate.open.set()
        assert (record.status, record.webhook_status) == (
            Status.EXPIRED,
            WebhookStatus.SUCCEEDED,
        )
        [message] = receiver.messages()
        assert message["data"] is None
        assert message["errors"][0]["message"]
    assert jobs.value("nerve_async_finished_total", status="expired") == 1


async def test_an_end_gives_back_what_is_in_progress(tmp_path: Path) -> None:
    """Draining takes nothing more; what was cut off is run again by the next server, as no attempt."""
    config, gate = job_config(tmp_path), Gate()
    job = new_job(max_attempts=1)
    async with running(config, Worker(gate), close_s=0.0) as jobs:
        await jobs.service.submit(job)
        await gate.reached.wait()
        jobs.service.drain()
        with pytest.raises(ServerStopping):
            await jobs.service.submit(new_job())
    worker = Worker()
    async with running(config, worker) as jobs:
        assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
    [claimed] = worker.seen
    assert (claimed.attempts, claimed.interruptions) == (1, 0)
    assert claimed.job == job


async def test_an_end_waits_for_what_is_in_progress(tmp_path: Path) -> None:
    config, gate = job_config(tmp_path), Gate()
    async with contextlib.AsyncExitStack() as stack:
        jobs = await stack.enter_async_context(running(config, Worker(gate)))
        job = new_job()
        await jobs.service.submit(job)
        await gate.reached.wait()
        asyncio.get_running_loop().call_soon(gate.open.set)
    store = new_job_store(config)
    await store.open()
    try:
        assert await store.result(job.request_id) == b'[["late"]]'
    finally:
        await store.aclose()


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    gate = Gate()
    config = job_config(tmp_path, async_max_in_progress=1, async_max_queued=1)
    async with running(config, Worker(gate)) as jobs:
        await jobs.service.submit(new_job())
        await gate.reached.wait()
        await jobs.service.submit(new_job())
        with pytest.raises(AsyncQueueFull):
            await jobs.service.submit(new_job())
        gate.open.set()


async def test_what_has_ended_is_forgotten_in_time(tmp_path: Path) -> None:
    config = job_config(tmp_path, async_retention_s=0.01)
    async with running(config, Worker()) as jobs:
        job = new_job()
        await jobs.service.submit(job)

        async def gone() -> bool:
            with contextlib.suppress(AsyncRequestNotFound):
                await jobs.service.status(job.request_id, None)
                return False
            return True

        await until(gone)


async def test_a_store_that_cannot_be_used_is_no_start(tmp_path: Path) -> None:
    config = job_config(tmp_path, async_store=str(tmp_path / "nowhere" / "jobs.db"))
    with pytest.raises(StoreUnavailable, match="nowhere"):
        async with running(config, Worker()):
            pass


async def test_broken_secrets_are_no_start(tmp_path: Path) -> None:
    config = job_config(tmp_path, async_webhook_secrets_file=str(tmp_path / "none"))
    with pytest.raises(ConfigInvalid, match="async_webhook_secrets_file"):
        JobService(
            new_job_store(config),
            config,
            JobMetrics(CollectorRegistry()),
            work=Worker(),
            pace=QUICK,
        )
