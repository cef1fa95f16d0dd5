"""What both stores do with requests until they end."""

from __future__ import annotations

import asyncio

import pytest

from job_stores import BROKEN, ENDED, FAILED, HOOK, LEASE_S, Place, claimed, new, sent
from nerve.errors import AsyncQueueFull, StoreFailed
from nerve.jobs.kept import EXPIRED
from nerve.jobs.limits import Limits
from nerve.jobs.records import Counts, JobStore, Status, WebhookStatus


async def test_a_new_request_is_told_of_and_counted(store: JobStore) -> None:
    """Bodies count as held; a record tells the version that was asked for."""
    await store.add(new("1", version="3", webhook=HOOK))
    await store.add(new("2", model="other", key=None))
    record = await store.record("1")
    assert record == (
        "1", "team", "ner", "3", Status.QUEUED, WebhookStatus.PENDING, 100.0, 100.0, ()
    )  # fmt: skip
    other = await store.record("2")
    assert other is not None
    assert other.version == ""
    assert other.key is None
    assert other.webhook_status is WebhookStatus.NO_WEBHOOK_PROVIDED
    assert await store.counts() == Counts(2, 0, 2, 32)
    assert await store.counts("other") == Counts(1, 0, 1, 16)
    assert await store.counts("none") == Counts(0, 0, 0, 0)
    assert await store.result("1") is None
    assert await store.record("none") is None
    assert await store.result("none") is None


async def test_a_second_request_of_an_id_fails_alone(store: JobStore) -> None:
    """Those that are written together with it are kept."""
    jobs = [new(str(number)) for number in range(20)]
    outcomes = await asyncio.gather(
        *(store.add(job) for job in [*jobs[:10], jobs[0], *jobs[10:]]), return_exceptions=True
    )
    failed = [each for each in outcomes if each is not None]
    assert len(failed) == 1
    assert isinstance(failed[0], StoreFailed)
    assert (await store.counts()).queued == 20


async def test_a_text_that_no_database_takes_fails_alone(store: JobStore) -> None:
    outcomes = await asyncio.gather(
        store.add(new("1")), store.add(new("2", key="\ud800")), store.add(new("3")),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(each) for each in outcomes] == [type(None), StoreFailed, type(None)]


async def test_claims_go_by_priority_then_age(store: JobStore) -> None:
    for request_id, priority, created_at in [
        ("low", 2, 90.0), ("late", 0, 102.0), ("middle", 1, 95.0), ("early", 0, 101.0),
        ("later", 0, 103.0),
    ]:  # fmt: skip
        await store.add(new(request_id, priority=priority, created_at=created_at))
    assert await claimed(store, limit=2) == ["early", "late"]
    assert await claimed(store) == ["later", "middle", "low"]
    assert await claimed(store) == []
    assert await store.counts() == Counts(0, 5, 5, 80)


async def test_a_claim_brings_all_that_was_asked(store: JobStore) -> None:
    job = new("1", version="7", webhook=HOOK, body=b"\x00\xff\x80", priority=1)
    await store.add(job)
    ((got, attempts, interruptions),) = await store.claim("a", 110.0, LEASE_S, 1)
    assert (got, attempts, interruptions) == (job, 1, 0)
    record = await store.record("1")
    assert record is not None
    assert (record.status, record.status_at) == (Status.IN_PROGRESS, 110.0)


async def test_an_end_keeps_the_result_and_forgets_the_body(store: JobStore) -> None:
    await store.add(new("1"))
    await claimed(store)
    assert await store.finish("a", "1", ENDED, 120.0)
    record = await store.record("1")
    assert record is not None
    assert record[3:] == (
        "2", Status.SUCCEEDED, WebhookStatus.NO_WEBHOOK_PROVIDED, 100.0, 120.0, ()
    )  # fmt: skip
    assert await store.result("1") == ENDED.result
    assert await store.counts() == Counts(0, 0, 1, len(ENDED.result or b""))
    assert not await store.finish("a", "1", FAILED, 130.0)  # it has ended


async def test_a_failure_keeps_its_errors(store: JobStore) -> None:
    await store.add(new("1", version="4"))
    await claimed(store)
    assert await store.finish("a", "1", FAILED, 120.0)
    record = await store.record("1")
    assert record is not None
    assert (record.version, record.status, record.errors) == ("4", Status.FAILED, (BROKEN,))
    assert await store.result("1") is None
    assert (await store.counts()).held_bytes == 0


async def test_a_retry_waits_for_its_time(store: JobStore, place: Place) -> None:
    """Exactly then it can be claimed; its place is that of its age."""
    await store.add(new("1"))
    await store.add(new("2", created_at=105.0))
    assert await claimed(store, limit=1) == ["1"]
    place.clock.now = 115.0
    assert await store.retry("a", "1", BROKEN, 150.0, counted=True)
    record = await store.record("1")
    assert record is not None
    assert (record.status, record.status_at, record.errors) == (Status.QUEUED, 115.0, (BROKEN,))
    assert await store.next_at(120.0) == 150.0
    assert await claimed(store, now=149.9) == ["2"]
    await store.release("a")
    (first, second) = await store.claim("a", 150.0, LEASE_S, 9)
    assert (first.job.request_id, first.attempts) == ("1", 2)
    assert (second.job.request_id, second.attempts) == ("2", 1)


async def test_an_attempt_that_is_not_counted_was_none(store: JobStore) -> None:
    """It may expire then."""
    await store.add(new("1"))
    await claimed(store)
    assert await store.retry("a", "1", BROKEN, 120.0, counted=False)
    ((_, attempts, _),) = await store.claim("a", 130.0, LEASE_S, 1)
    assert attempts == 1
    assert await store.retry("a", "1", BROKEN, 199.0, counted=False)
    assert await store.expire(200.0) == 1
    record = await store.record("1")
    assert record is not None
    assert record.errors == (BROKEN, EXPIRED)


async def test_nobody_but_the_owner_changes_a_claimed_request(store: JobStore) -> None:
    await store.add(new("1", webhook=HOOK))
    assert not await store.finish("a", "1", ENDED, 105.0)  # nobody has it
    await claimed(store, "a")
    before = await store.record("1")
    assert not await store.finish("b", "1", ENDED, 120.0)
    assert not await store.retry("b", "1", BROKEN, 120.0, counted=True)
    assert not await store.delivered("a", "1", 120.0)  # there is no message yet
    assert not await store.undelivered("a", "1", BROKEN, 120.0, None)
    assert not await store.finish("a", "none", ENDED, 120.0)
    await store.release("b")
    assert await store.record("1") == before
    assert await store.finish("a", "1", ENDED, 120.0)


async def test_what_is_released_can_be_claimed_at_once(store: JobStore) -> None:
    await store.add(new("1"))
    await store.add(new("2", webhook=HOOK))
    await claimed(store)
    await store.finish("a", "2", ENDED, 115.0)
    assert await sent(store) == ["2"]
    await store.release("a")
    assert not await store.finish("a", "1", ENDED, 120.0)
    assert not await store.delivered("a", "2", 120.0)
    ((job, attempts, interruptions),) = await store.claim("b", 120.0, LEASE_S, 9)
    assert (job.request_id, attempts, interruptions) == ("1", 1, 0)
    assert await sent(store, "b") == ["2"]


async def test_what_a_lost_server_had_is_interrupted(store: JobStore, place: Place) -> None:
    """It is no attempt; after the second time it runs alone, after more than allowed it fails."""
    await store.add(new("1", webhook=HOOK))
    for interruptions in (1, 2, 3):
        owner, alone = f"lost {interruptions}", interruptions > 2
        ((_, attempts, before),) = await store.claim(owner, 110.0, 0.0, 9, alone=alone)
        assert (attempts, before) == (1, interruptions - 1)
        assert await store.claim(owner, 110.0, 0.0, 9, alone=not alone) == []
        assert await store.recover(frozenset({owner}), 120.0, 3) == (0, 0)  # it is there itself
        assert await store.recover(frozenset({"next"}), 120.0, 3) == (1, 0)
        assert await store.recover(frozenset({"next"}), 120.0, 3) == (0, 0)
        assert not await store.finish(owner, "1", ENDED, 125.0)
    assert await claimed(store, alone=True, lease_s=0.0) == ["1"]
    assert await store.recover(frozenset({"next"}), 130.0, 3) == (0, 1)
    record = await store.record("1")
    assert record is not None
    assert record[4:6] == (Status.FAILED, WebhookStatus.PENDING)
    assert record.status_at == 130.0
    ((code, message),) = record.errors
    assert code == "INTERNAL_SERVER_ERROR"
    assert "4 times" in message
    assert (await store.counts()).held_bytes == 0
    assert await sent(store, now=130.0) == ["1"]


async def test_an_expiry_is_exact(store: JobStore) -> None:
    """What has expired is not claimed, even if nobody has ended it yet."""
    await store.add(new("1", webhook=HOOK))
    await store.add(new("2", expires_at=300.0))
    assert await store.next_at(110.0) == 200.0
    assert await store.expire(199.9) == 0
    assert await claimed(store, now=200.0) == ["2"]
    assert await store.expire(200.0) == 1
    assert await store.expire(200.0) == 0
    record = await store.record("1")
    assert record is not None
    assert record[4:] == (Status.EXPIRED, WebhookStatus.PENDING, 100.0, 200.0, (EXPIRED,))
    assert (await store.counts()).held_bytes == 16
    (message,) = await store.claim_deliveries("a", 200.0, LEASE_S, 9)
    assert (message.status, message.result, message.errors) == (Status.EXPIRED, None, (EXPIRED,))


async def test_what_was_tried_does_not_expire(store: JobStore) -> None:
    await store.add(new("1"))
    await claimed(store)
    assert await store.expire(300.0) == 0  # it is in progress
    await store.retry("a", "1", BROKEN, 250.0, counted=True)
    assert await store.expire(300.0) == 0
    assert await claimed(store, now=300.0) == ["1"]


async def test_only_what_is_queued_is_canceled(store: JobStore) -> None:
    await store.add(new("1", webhook=HOOK))
    await store.add(new("2"))
    await claimed(store, limit=1)
    before = await store.cancel("1", 120.0)
    assert before is not None
    assert before.status is Status.IN_PROGRESS
    assert await store.record("1") == before
    await store.retry("a", "1", BROKEN, 150.0, counted=True)
    for request_id, webhook_status in [
        ("1", WebhookStatus.CANCELED), ("2", WebhookStatus.NO_WEBHOOK_PROVIDED)
    ]:  # fmt: skip
        before = await store.cancel(request_id, 130.0)
        assert before is not None
        assert before.status is Status.QUEUED
        record = await store.record(request_id)
        assert record is not None
        assert record[4:6] == (Status.CANCELED, webhook_status)
        assert record.status_at == 130.0
        again = await store.cancel(request_id, 140.0)
        assert again == record
    assert await store.cancel("none", 130.0) is None
    assert await claimed(store, now=160.0) == []
    assert await sent(store, now=160.0) == []
    assert await store.next_at(110.0) is None
    assert await store.counts() == Counts(0, 0, 2, 0)


async def test_a_full_queue_refuses(place: Place) -> None:
    """There is room again as soon as one is claimed; what is given back may exceed the limit."""
    store = place.store(Limits(max_queued=2, max_stored_bytes=2**20, retention_s=60.0))
    await store.open()
    await store.add(new("1"))
    await store.add(new("2", model="other"))
    with pytest.raises(AsyncQueueFull, match="2 queued async requests") as refused:
        await store.add(new("3"))
    assert 1.0 <= refused.value.wait_s <= 60.0
    assert await claimed(store, limit=1) == ["1"]
    await store.add(new("3"))
    await store.release("a")
    assert (await store.counts()).queued == 3
    with pytest.raises(AsyncQueueFull):
        await store.add(new("4"))
    await store.aclose()


async def test_bytes_are_bounded_and_the_sum_survives(place: Place) -> None:
    """Bodies and results count; the wait is until the first of them is forgotten."""
    limits = Limits(max_queued=9, max_stored_bytes=1000, retention_s=60.0)
    store = place.store(limits)
    await store.open()
    await store.add(new("1", body=b"x" * 600))
    with pytest.raises(AsyncQueueFull, match="1000 bytes"):
        await store.add(new("2", body=b"x" * 401))
    await store.add(new("2", body=b"x" * 400))
    await claimed(store, limit=1)
    await store.finish("a", "1", ENDED._replace(result=b"y" * 601), 120.0)
    await store.aclose()
    store = place.store(limits)
    await store.open()
    assert await store.counts() == Counts(1, 0, 2, 1001)
    place.clock.now = 130.0
    with pytest.raises(AsyncQueueFull) as refused:
        await store.add(new("3", body=b""))
    assert refused.value.wait_s == 50.0
    assert await store.sweep(120.1, 9) == 1
    await store.add(new("3", body=b"x" * 600))
    await store.cancel("3", 130.0)
    await store.cancel("2", 130.0)
    assert await store.sweep(200.0, 9) == 2
    assert await store.counts() == Counts(0, 0, 0, 0)
    await store.aclose()


async def test_a_store_that_is_closed_says_so(place: Place) -> None:
    store = place.store()
    with pytest.raises(StoreFailed, match="not open"):
        await store.add(new("1"))
    await store.open()
    await store.aclose()
    with pytest.raises(StoreFailed, match="not open"):
        await store.record("1")
    await store.aclose()
