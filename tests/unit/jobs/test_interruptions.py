"""What a server that went away without a word leaves behind: run again, alone, or given up."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from job_tools import (
    QUICK,
    Failing,
    Receiver,
    Worker,
    job_config,
    killed,
    new_job,
    receiving,
    running,
    until,
)
from nerve.errors import QueueFull
from nerve.jobs import codes
from nerve.jobs.pace import LONGEST_LOOK_S
from nerve.jobs.records import ClaimedJob, Status
from nerve.jobs.runner import Answered
from nerve.jobs.stores import new_job_store

FINE = b'[["fine"]]'


async def test_what_was_interrupted_is_run_again(tmp_path: Path) -> None:
    """And is no attempt; once may happen to anyone."""
    made = [new_job(max_attempts=1) for _ in range(5)]
    await killed(tmp_path, 1, *made)
    worker = Worker()
    async with running(job_config(tmp_path), worker) as jobs:
        for job in made:
            assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
    assert {(each.attempts, each.interruptions) for each in worker.seen} == {(1, 1)}


async def test_what_was_interrupted_twice_runs_alone(tmp_path: Path) -> None:
    suspects = {job.request_id: job for job in (new_job() for _ in range(3))}
    await killed(tmp_path, 2, *suspects.values())
    together: dict[str, int] = {}

    class Watched(Worker):
        async def __call__(self, claimed: ClaimedJob, deadline: float) -> Answered:
            async def yields() -> bytes:
                most = 0
                for _ in range(5):
                    most = max(most, self.together)
                    await asyncio.sleep(0.01)
                together[claimed.job.request_id] = most
                return FINE

            self.outcomes = [yields]
            return await super().__call__(claimed, deadline)

    async with running(job_config(tmp_path, async_max_in_progress=8), Watched()) as jobs:
        others = [new_job() for _ in range(20)]
        await asyncio.gather(*map(jobs.service.submit, others))
        for job in (*others, *suspects.values()):
            assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
    assert {together[each] for each in suspects} == {1}
    assert max(together.values()) > 1


async def test_that_it_runs_alone_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it has to wait for room; the next start tells it again."""
    suspect = new_job()
    await killed(tmp_path, 2, suspect)
    busy = QueueFull("ner", 8)
    with caplog.at_level(logging.WARNING):
        async with running(job_config(tmp_path), Worker(busy)) as jobs:

            async def postponed() -> bool:
                return jobs.value("nerve_async_attempts_total", outcome="postponed") >= 3

            await until(postponed)
        first = [each for each in caplog.messages if "runs alone" in each]
        async with running(job_config(tmp_path), Worker(busy, busy, FINE)) as jobs:
            record = await jobs.ended(suspect.request_id)
    assert record.status is Status.SUCCEEDED
    assert len(first) == 1
    told = [each for each in caplog.messages if "runs alone" in each]
    assert [suspect.request_id in each for each in told] == [True, True]


async def test_one_that_comes_due_while_it_is_looked_for(tmp_path: Path) -> None:
    """What has to wait for a retry, and runs alone, is not passed over by the claim of the others."""

    class Slow(Failing):
        async def claim(self, *args: Any, **named: Any) -> list[ClaimedJob]:
            claimed: list[ClaimedJob] = await self._store.claim(*args, **named)
            if named.get("alone") and not claimed:
                await asyncio.sleep(0.1)
            return claimed

    suspect = new_job(initial_delay_s=0.05, max_delay_s=0.05)
    await killed(tmp_path, 2, suspect)
    config = job_config(tmp_path)
    worker = Worker(RuntimeError("anything"), FINE)
    began = time.monotonic()
    async with running(config, worker, store=Slow(new_job_store(config))) as jobs:
        assert (await jobs.ended(suspect.request_id)).status is Status.SUCCEEDED
    assert time.monotonic() - began < LONGEST_LOOK_S / 2


async def test_one_that_comes_due_when_another_comes(tmp_path: Path) -> None:
    """It is looked for then, or as soon as that may be."""
    suspect = new_job(initial_delay_s=0.2, max_delay_s=0.2)
    await killed(tmp_path, 2, suspect)
    worker = Worker(RuntimeError("anything"), FINE)
    began = time.monotonic()
    async with running(job_config(tmp_path), worker, pace=QUICK._replace(poll_s=1.0)) as jobs:

        async def retried() -> bool:
            return jobs.value("nerve_async_attempts_total", outcome="retried") == 1

        await until(retried)
        await asyncio.sleep(0.1)  # the runner waits until it is due
        await jobs.service.submit(new_job())
        time.sleep(0.2)  # and when it is, has been woken already
        assert (await jobs.ended(suspect.request_id)).status is Status.SUCCEEDED
    assert time.monotonic() - began < LONGEST_LOOK_S / 2


async def test_what_kills_every_server_fails_in_the_end(tmp_path: Path) -> None:
    """And its webhook is told."""
    async with receiving(Receiver()) as receiver:
        poison = new_job(webhook=receiver.url)
        await killed(tmp_path, 6, poison)
        worker = Worker()
        async with running(job_config(tmp_path), worker) as jobs:
            record = await jobs.ended(poison.request_id)
            fine = new_job()
            await jobs.service.submit(fine)
            assert (await jobs.ended(fine.request_id)).status is Status.SUCCEEDED
    assert (record.status, record.errors[0].code) == (Status.FAILED, codes.INTERNAL)
    assert "6 times" in record.errors[0].message
    assert jobs.value("nerve_async_finished_total", status="failed") == 1
    assert [each.job.request_id for each in worker.seen] == [fine.request_id]
    assert [each["errors"][0]["code"] for each in receiver.messages()] == [codes.INTERNAL]
