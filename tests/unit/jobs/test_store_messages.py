"""What both stores do once requests have ended: messages to webhooks, and forgetting."""

from __future__ import annotations

import pytest

from job_stores import BROKEN, ENDED, FAILED, HOOK, LEASE_S, REFUSED, claimed, new, sent
from nerve.jobs.records import Counts, Delivery, Done, JobStore, Status, WebhookStatus


async def ended(
    store: JobStore, request_id: str, done: Done = ENDED, at: float = 115.0, hook: str | None = HOOK
) -> None:
    """A request that ended."""
    await store.add(new(request_id, webhook=hook))
    assert await claimed(store, "runner") == [request_id]
    assert await store.finish("runner", request_id, done, at)


async def status(store: JobStore, request_id: str) -> tuple[Status, WebhookStatus, float]:
    """Of the request, of its message, and since when."""
    record = await store.record(request_id)
    assert record is not None
    return record.status, record.webhook_status, record.status_at


async def test_a_message_brings_all_that_is_sent(store: JobStore) -> None:
    await ended(store, "1")
    await ended(store, "2", FAILED, 116.0)
    assert await store.claim_deliveries("a", 114.9, LEASE_S, 9) == []
    assert await store.claim_deliveries("a", 120.0, LEASE_S, 9) == [
        Delivery("1", "ner", "2", HOOK, Status.SUCCEEDED, 115.0, ENDED.result, (), 0),
        Delivery("2", "ner", "", HOOK, Status.FAILED, 116.0, None, (BROKEN,), 0),
    ]
    assert await store.claim_deliveries("a", 120.0, LEASE_S, 9) == []


async def test_the_oldest_messages_go_first(store: JobStore) -> None:
    for request_id, at in [("late", 118.0), ("early", 116.0), ("middle", 117.0)]:
        await ended(store, request_id, at=at)
    assert await sent(store, limit=2) == ["early", "middle"]
    assert await sent(store) == ["late"]


@pytest.mark.parametrize(("done", "is_status"), [(ENDED, "SUCCEEDED"), (FAILED, "FAILED")])
async def test_a_message_that_was_taken_is_done(
    store: JobStore, done: Done, is_status: str
) -> None:
    """Not earlier, and only by its owner; the result stays."""
    await ended(store, "1", done)
    assert not await store.delivered("a", "1", 119.0)  # nobody has it
    assert await sent(store) == ["1"]
    assert not await store.delivered("b", "1", 121.0)
    assert not await store.undelivered("b", "1", REFUSED, 121.0, None)
    assert await status(store, "1") == (is_status, WebhookStatus.PENDING, 115.0)
    assert await store.delivered("a", "1", 121.0)
    assert not await store.delivered("a", "1", 122.0)
    assert await status(store, "1") == (is_status, WebhookStatus.SUCCEEDED, 115.0)
    assert await store.result("1") == done.result
    assert await sent(store, now=1000.0) == []


async def test_a_message_is_sent_again_at_its_time(store: JobStore) -> None:
    """What was wrong is told until it was taken; it is not in the message."""
    await ended(store, "1", FAILED)
    await sent(store)
    assert await store.undelivered("a", "1", REFUSED, 121.0, 130.0)
    record = await store.record("1")
    assert record is not None
    assert record.errors == (BROKEN, REFUSED)
    assert await store.next_at(121.0) == 130.0
    assert await sent(store, now=129.9) == []
    (message,) = await store.claim_deliveries("b", 130.0, LEASE_S, 9)
    assert (message.deliveries, message.errors) == (1, (BROKEN,))
    assert await store.next_at(121.0) is None  # it is being sent
    assert await store.delivered("b", "1", 131.0)
    record = await store.record("1")
    assert record is not None
    assert record.errors == (BROKEN,)


async def test_a_message_that_is_put_off_was_not_tried(store: JobStore) -> None:
    await ended(store, "1")
    await sent(store)
    assert await store.undelivered("a", "1", REFUSED, 121.0, 130.0, counted=False)
    (message,) = await store.claim_deliveries("b", 130.0, LEASE_S, 9)
    assert message.deliveries == 0


@pytest.mark.parametrize(
    ("done", "is_status", "since"), [(ENDED, "WEBHOOK_FAILED", 121.0), (FAILED, "FAILED", 115.0)]
)
async def test_a_message_that_is_never_taken(
    store: JobStore, done: Done, is_status: str, since: float
) -> None:
    """Only what succeeded has failed by it; its result can be had all the same."""
    await ended(store, "1", done)
    await sent(store)
    assert await store.undelivered("a", "1", REFUSED, 121.0, None)
    assert await status(store, "1") == (is_status, WebhookStatus.FAILED, since)
    record = await store.record("1")
    assert record is not None
    assert record.errors == (*done.errors, REFUSED)
    assert await store.result("1") == done.result
    assert await sent(store, now=1000.0) == []
    assert not await store.undelivered("a", "1", REFUSED, 122.0, 130.0)


async def test_a_lost_server_s_messages_are_sent_by_others(store: JobStore) -> None:
    """They are no requests that were interrupted."""
    await ended(store, "1")
    assert len(await store.claim_deliveries("lost", 120.0, 0.0, 9)) == 1
    assert await sent(store, "next") == []
    assert await store.recover(frozenset({"next"}), 121.0, 3) == (0, 0)
    assert await sent(store, "next") == ["1"]
    assert not await store.delivered("lost", "1", 122.0)
    assert await store.delivered("next", "1", 122.0)


async def test_forgotten_is_what_has_nothing_left_to_do(store: JobStore) -> None:
    """By the time when it had been delivered, or had ended without a webhook."""
    await ended(store, "delivered")
    await sent(store)
    await store.delivered("a", "delivered", 150.0)
    await ended(store, "failed for good")
    await sent(store)
    await store.undelivered("a", "failed for good", REFUSED, 140.0, None)
    await ended(store, "no webhook", hook=None)
    await ended(store, "pending")
    await store.add(new("canceled"))
    await store.cancel("canceled", 130.0)
    await store.add(new("in progress"))
    await claimed(store)
    await store.add(new("queued"))
    assert await store.sweep(115.0, 9) == 0
    for before, gone in [
        (115.1, "no webhook"), (130.1, "canceled"), (140.1, "failed for good"),
        (150.1, "delivered"),
    ]:  # fmt: skip
        assert await store.record(gone) is not None
        assert await store.sweep(before, 9) == 1
        assert await store.record(gone) is None
        assert await store.result(gone) is None
    assert await store.sweep(1e9, 9) == 0
    assert (await store.counts()).kept == 3


async def test_a_sweep_has_a_limit_and_leaves_nothing(store: JobStore) -> None:
    for number in range(5):
        await ended(store, str(number), at=110.0 + number, hook=None)
    assert await store.sweep(200.0, 2) == 2
    assert await store.record("1") is None
    assert await store.record("2") is not None
    assert await store.sweep(200.0, 9) == 3
    assert await store.counts() == Counts(0, 0, 0, 0)
    assert await store.counts("ner") == Counts(0, 0, 0, 0)
