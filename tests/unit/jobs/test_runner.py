"""Attempts: in which order, how many at once and how often; and what must not take others along."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from job_tools import (
    PATIENCE_S,
    QUICK,
    Failing,
    Receiver,
    Worker,
    job_config,
    killed,
    new_job,
    receiving,
    running,
)
from nerve import errors
from nerve.jobs import codes
from nerve.jobs.pace import doubled
from nerve.jobs.records import Done, JobError, JobRecord, NewJob, Status
from nerve.jobs.runner import Runner
from nerve.jobs.stores import new_job_store
from nerve.metrics.jobs import JobMetrics

BUSY = errors.QueueFull("ner", 8)
BROKEN = errors.InferenceFailed("ner", "no such node")
LOADING = errors.ModelNotReady("ner", "", "LOADING", "")
FINE = b'[["fine"]]'


async def outcome(
    folder: Path, worker: Worker, job: NewJob, **settings: object
) -> tuple[JobRecord, dict[str, float]]:
    """What becomes of a request, and the outcomes of its attempts that were counted."""
    async with running(job_config(folder, **settings), worker) as jobs:
        await jobs.service.submit(job)
        record = await jobs.ended(job.request_id)
    names = ("succeeded", "failed", "retried", "postponed")
    values = {name: jobs.value("nerve_async_attempts_total", outcome=name) for name in names}
    assert jobs.value("nerve_async_queue_seconds_count") == 1
    return record, {name: value for name, value in values.items() if value}


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        (errors.InvalidField("inputs", "missing"), codes.INVALID_INPUT, 1),
        (errors.ModelNotFound("ner", []), codes.DOES_NOT_EXIST, 1),
        (errors.ModelNotReady("ner", "", "UNAVAILABLE", "damaged"), codes.NOT_READY, 3),
        (BROKEN, codes.PREDICT_ERROR, 3),
        (errors.DeadlineExceeded(), codes.PREDICT_TIMEOUT, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_a_poison_request_fails_with_its_reason(
    tmp_path: Path, error: Exception, code: str, attempts: int
) -> None:
    """After its attempts, or at once where another one would not help; never round for ever."""
    worker = Worker(error)
    record, counted = await outcome(tmp_path, worker, new_job(max_attempts=3))
    assert record.status is Status.FAILED
    assert record.errors == ((code, str(error)),)
    assert [each.attempts for each in worker.seen] == [*range(1, attempts + 1)]
    assert counted == {"failed": 1} | ({"retried": attempts - 1} if attempts > 1 else {})


async def test_it_may_succeed_another_time(tmp_path: Path) -> None:
    worker = Worker(BROKEN, BROKEN, FINE)
    record, counted = await outcome(tmp_path, worker, new_job(max_attempts=3))
    assert (record.status, record.errors) == (Status.SUCCEEDED, ())
    assert counted == {"retried": 2, "succeeded": 1}


@pytest.mark.parametrize("error", [BUSY, LOADING], ids=["overloaded", "loading"])
async def test_waiting_for_room_or_a_model_is_no_attempt(tmp_path: Path, error: Exception) -> None:
    worker = Worker(error, error, error, error, FINE)
    record, counted = await outcome(tmp_path, worker, new_job(max_attempts=1))
    assert record.status is Status.SUCCEEDED
    assert {each.attempts for each in worker.seen} == {1}
    assert counted == {"postponed": 4, "succeeded": 1}


async def test_waiting_for_room_ends(tmp_path: Path) -> None:
    """Also after an attempt, when a request does not expire any more."""
    config, now = job_config(tmp_path), time.time()
    job = new_job(max_attempts=3, created_at=now - 100, expires_at=now - 50)
    store = new_job_store(config)
    await store.open()
    await store.add(job)
    assert await store.claim("before", now - 90, 30.0, 1)
    error = JobError(codes.PREDICT_ERROR, "broken")
    assert await store.retry("before", job.request_id, error, now - 80, counted=True)
    await store.aclose()
    worker = Worker(BUSY)
    async with running(config, worker) as jobs:
        record = await jobs.ended(job.request_id)
    assert record.status is Status.FAILED
    assert record.errors == ((codes.UNAVAILABLE, str(BUSY)),)
    assert [each.attempts for each in worker.seen] == [2, 3]


async def test_an_unexpected_error_is_logged_and_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record, _ = await outcome(tmp_path, Worker(KeyError("s3cret")), new_job(max_attempts=1))
    assert record.errors[0].code == codes.INTERNAL
    assert "s3cret" not in record.errors[0].message
    assert any(each.exc_info and "s3cret" in repr(each.exc_info[1]) for each in caplog.records)


async def test_an_attempt_has_an_end(tmp_path: Path) -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return FINE

    job = new_job(max_attempts=1)
    record, _ = await outcome(tmp_path, Worker(never), job, async_timeout_s=0.05)
    assert (record.status, record.errors[0].code) == (Status.FAILED, codes.PREDICT_TIMEOUT)


async def test_the_order_is_by_priority_then_by_age(tmp_path: Path) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def held() -> bytes:
        started.set()
        await go.wait()
        return FINE

    worker = Worker(held)
    async with running(job_config(tmp_path, async_max_in_progress=1), worker) as jobs:
        await jobs.service.submit(new_job())
        await started.wait()
        now = time.time()
        made = [(2, 0.0), (1, 0.1), (0, 0.3), (1, 0.05), (0, 0.2)]
        for priority, age in made:
            await jobs.service.submit(
                new_job(request_id=f"{priority}-{age}", priority=priority, created_at=now + age)
            )
        go.set()
        for priority, age in made:
            await jobs.ended(f"{priority}-{age}")
    order = [each.job.request_id for each in worker.seen[1:]]
    assert order == ["0-0.2", "0-0.3", "1-0.05", "1-0.1", "2-0.0"]


async def test_no_more_are_in_progress_than_may_be(tmp_path: Path) -> None:
    met = asyncio.Event()

    async def meets() -> bytes:
        if worker.together == 3:
            met.set()
        await met.wait()
        return FINE

    worker = Worker(meets)
    async with running(job_config(tmp_path, async_max_in_progress=3), worker) as jobs:
        made = [new_job() for _ in range(20)]
        await asyncio.gather(*map(jobs.service.submit, made))
        for job in made:
            assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
    assert worker.most_together == 3
    assert len(worker.seen) == 20


async def test_a_store_that_fails_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """The result that could not be written is written later, and no second attempt is made."""
    config = job_config(tmp_path)
    failing = Failing(new_job_store(config))

    async def breaks() -> bytes:
        failing.down = True
        return FINE

    worker = Worker(breaks, FINE)
    async with running(config, worker, store=failing) as jobs:
        job = new_job()
        await jobs.service.submit(job)
        async with asyncio.timeout(PATIENCE_S):
            while failing.calls < 5:
                await asyncio.sleep(0.01)
        with pytest.raises(errors.StoreFailed):
            await jobs.service.submit(new_job())
        failing.down = False
        assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
        after = new_job()
        await jobs.service.submit(after)
        assert (await jobs.ended(after.request_id)).status is Status.SUCCEEDED
    assert len(worker.seen) == 2


async def test_a_claim_of_which_nothing_was_heard_is_given_back(tmp_path: Path) -> None:
    """Or it would be ours, and never worked on, for as long as the server lives."""
    config = job_config(tmp_path)
    failing = Failing(new_job_store(config))
    failing.after = {"claim_deliveries"}
    worker = Worker()
    async with receiving(Receiver()) as receiver:
        await killed(tmp_path, 0, new_job(request_id="one", webhook=receiver.url))
        failing.after |= {"claim"}
        async with running(config, worker, store=failing) as jobs:
            assert (await jobs.ended("one")).status is Status.SUCCEEDED
    assert failing.after == set()
    assert [each["request_id"] for each in receiver.messages()] == ["one"]


async def test_a_result_that_is_too_large_fails(tmp_path: Path) -> None:
    store, job, ended = new_job_store(job_config(tmp_path)), new_job(), asyncio.Event()
    await store.open()
    await store.add(job)
    runner = Runner(
        store,
        Worker(b"[" + b"1" * 200 + b"]"),
        JobMetrics(CollectorRegistry()),
        owner="us",
        limit=1,
        timeout_s=PATIENCE_S,
        ended=ended.set,
        pace=QUICK,
        max_result_bytes=100,
    )
    runner.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        record = await store.record(job.request_id)
    finally:
        await runner.aclose(PATIENCE_S)
        await store.aclose()
    assert record is not None
    assert record.status is Status.FAILED
    assert "202 bytes, at most 100" in record.errors[0].message


async def test_what_is_another_server_s_by_now_stays_its(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was held up for too long must not write over what another one did."""
    config = job_config(tmp_path, async_max_in_progress=1)
    store = new_job_store(config)

    async def taken_over() -> bytes:
        await store.recover(frozenset({"another"}), time.time(), 5)
        [claimed] = await store.claim("another", time.time(), 30.0, 1)
        done = Done(Status.SUCCEEDED, "8", b'"theirs"', ())
        await store.finish("another", claimed.job.request_id, done, time.time())
        return b'"ours"'

    job = new_job()
    with caplog.at_level(logging.WARNING):
        async with running(config, Worker(taken_over), store=store) as jobs:
            await jobs.service.submit(job)
            await jobs.ended(job.request_id)
            assert await jobs.service.result(job.request_id, None) == b'"theirs"'
    assert "another server's" in caplog.text


def test_delays_double_up_to_a_limit() -> None:
    assert [doubled(2.0, times, 20.0) for times in (0, 1, 2, 3, 4, 5, 5000)] == [
        *(2.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0)
    ]
    assert doubled(0.0, 5000, 20.0) == 0.0
