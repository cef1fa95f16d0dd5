"""Two servers on one store: who does what, who is gone, and who only takes long."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psycopg
from prometheus_client import CollectorRegistry

from job_stores import ENDED
from job_tools import (
    QUICK,
    Failing,
    Receiver,
    Worker,
    job_config,
    new_job,
    receiving,
    running,
    until,
)
from nerve.jobs.housekeeping import Housekeeping
from nerve.jobs.records import Status
from nerve.jobs.stores import new_job_store
from nerve.metrics.jobs import JobMetrics
from postgres_cluster import Cluster

FINE = b'[["fine"]]'


def leases(url: str) -> dict[str, float]:
    """Until when what is claimed is its owner's."""
    with psycopg.connect(url) as db:
        rows = db.execute("SELECT request_id, lease_until FROM nerve_jobs WHERE owner IS NOT NULL")
        return dict(rows.fetchall())


async def test_each_request_is_run_once_and_told_of_once(cluster: Cluster, tmp_path: Path) -> None:
    """By whichever server: both have some in progress at the same time."""
    config = job_config(tmp_path, async_store=cluster.new_schema(), async_max_in_progress=4)
    met = asyncio.Event()

    async def meets() -> bytes:
        if first.seen and second.seen:
            met.set()
        await met.wait()
        return FINE

    first, second = Worker(meets), Worker(meets)
    async with (
        receiving(Receiver()) as receiver,
        running(config, first) as one,
        running(config, second) as two,
    ):
        made = [new_job(webhook=receiver.url, model=f"ner{number % 3}") for number in range(40)]
        await asyncio.gather(
            *((two if number % 2 else one).service.submit(job) for number, job in enumerate(made))
        )
        for job in made:
            assert (await one.ended(job.request_id)).status is Status.SUCCEEDED
    ids = sorted(job.request_id for job in made)
    assert sorted(each.job.request_id for each in (*first.seen, *second.seen)) == ids
    assert sorted(each["request_id"] for each in receiver.messages()) == ids
    assert {each.interruptions for each in (*first.seen, *second.seen)} == {0}
    ended = [each.value("nerve_async_finished_total", status="succeeded") for each in (one, two)]
    assert (sum(ended), min(ended) > 0) == (40, True)


async def test_what_a_lost_server_had_is_taken_over(cluster: Cluster, tmp_path: Path) -> None:
    """Its request as interrupted, its message sent again; it could not give them back."""
    config = job_config(tmp_path, async_store=cluster.new_schema())
    lost, began = Failing(new_job_store(config)), asyncio.Event()

    async def never() -> bytes:
        began.set()
        await asyncio.Event().wait()
        return FINE

    pace = QUICK._replace(lease_s=1.0)
    worker = Worker()
    gate = asyncio.Event()
    async with receiving(Receiver(gate=gate)) as receiver:
        async with running(config, Worker(FINE, never), store=lost, pace=pace) as first:
            await first.service.submit(new_job(request_id="sent", webhook=receiver.url))

            async def sent() -> bool:
                return bool(receiver.got)

            await until(sent)
            await first.service.submit(new_job(request_id="cut", max_attempts=1))
            await began.wait()
            lost.down = True
            await first.service.aclose(0.0)
        gate.set()
        async with running(config, worker, pace=pace) as second:
            assert (await second.ended("cut")).status is Status.SUCCEEDED
            assert (await second.ended("sent")).status is Status.SUCCEEDED
    [claimed] = worker.seen
    assert (claimed.job.request_id, claimed.attempts, claimed.interruptions) == ("cut", 1, 1)
    assert [each["request_id"] for each in receiver.messages()] == ["sent", "sent"]


async def test_what_takes_long_is_not_taken_over(cluster: Cluster, tmp_path: Path) -> None:
    """An attempt, and a message: their leases are renewed while another server looks for lost ones."""
    url = cluster.new_schema()
    config = job_config(tmp_path, async_store=url)
    gate, began, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def long() -> bytes:
        began.set()
        await done.wait()
        return FINE

    other = Worker()
    async with receiving(Receiver(gate=gate)) as receiver:
        pace = QUICK._replace(lease_s=6.0)
        async with running(config, Worker(FINE, long), pace=pace) as first:
            await first.service.submit(new_job(request_id="sent", webhook=receiver.url))

            async def sent() -> bool:
                return bool(receiver.got)

            await until(sent)
            await first.service.submit(new_job(request_id="long"))
            await began.wait()
            before = await asyncio.to_thread(leases, url)
            assert set(before) == {"sent", "long"}
            async with running(config, other, pace=QUICK._replace(lease_s=0.1)):

                async def renewed() -> bool:
                    now = await asyncio.to_thread(leases, url)
                    return all(now[each] > before[each] for each in before)

                await until(renewed)
                gate.set()
                done.set()
                for request_id in ("sent", "long"):
                    assert (await first.ended(request_id)).status is Status.SUCCEEDED
    assert other.seen == []
    assert len(receiver.got) == 1


async def test_after_the_store_was_away_the_living_renew_first(tmp_path: Path) -> None:
    """Nobody could; what looks lost is taken up only when they have had the time to."""
    config, lease_s = job_config(tmp_path), 0.5
    store = Failing(new_job_store(config), shared=True)
    taken_at: list[float] = []
    keeper = Housekeeping(
        store,
        JobMetrics(CollectorRegistry()),
        owners=frozenset({"us"}),
        retention_s=60.0,
        holding=lambda: False,
        recovered=lambda: taken_at.append(time.monotonic()),
        pace=QUICK._replace(lease_s=lease_s),
    )
    await store.open()
    store.down = True
    keeper.start()
    try:

        async def failed() -> bool:
            return store.calls > 3

        await until(failed)
        store.down = False
        await store.add(new_job(request_id="1"))
        assert len(await store.claim("another", time.time(), 30.0, 1)) == 1

        async def taken() -> bool:
            return bool(taken_at)

        await until(taken)
        assert taken_at[0] >= store.failed_at + lease_s
        assert not await store.finish("another", "1", ENDED, time.time())
    finally:
        await keeper.aclose()
        await store.aclose()
