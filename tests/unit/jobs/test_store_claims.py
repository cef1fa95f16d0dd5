"""What both stores do with claims of several models, and with the names of one server."""

from __future__ import annotations

from job_stores import ENDED, HOOK, Place, claimed, new, sent
from nerve.jobs.records import JobStore


async def test_models_that_are_left_out_are_not_claimed(store: JobStore) -> None:
    for number, model in enumerate(["a", "b", "a", "c", "a", "b"]):
        await store.add(new(f"{model}{number}", model=model, created_at=100.0 + number))
    assert await claimed(store, without=("a", "none"), limit=2) == ["b1", "c3"]
    assert await claimed(store, without=("a", "b")) == []
    assert await claimed(store, without=["a"]) == ["b5"]
    assert await claimed(store) == ["a0", "a2", "a4"]


async def test_the_order_is_that_of_all_models_together(store: JobStore) -> None:
    """By priority, then by age, then as they came."""
    for request_id, model, priority, created_at in [
        ("a late", "a", 0, 109.0), ("b", "b", 1, 100.0), ("a", "a", 0, 105.0), ("c", "c", 0, 105.0),
        ("b first", "b", 0, 101.0), ("c low", "c", 2, 100.0),
    ]:  # fmt: skip
        await store.add(new(request_id, model=model, priority=priority, created_at=created_at))
    assert await claimed(store, limit=3) == ["b first", "a", "c"]
    assert await claimed(store) == ["a late", "b", "c low"]


async def test_what_was_interrupted_and_is_left_out_waits(store: JobStore) -> None:
    await store.add(new("1", model="a"))
    for owner in ("gone", "gone too"):
        assert await claimed(store, owner, lease_s=0.0) == ["1"]
        assert await store.recover(frozenset({"next"}), 110.0, 3) == (1, 0)
    assert await claimed(store, alone=True, without=("a",)) == []
    assert await claimed(store) == []
    assert await claimed(store, alone=True, without=("b",)) == ["1"]


async def test_a_server_takes_nothing_from_itself(store: JobStore, place: Place) -> None:
    """By whichever of its names it works on something; its messages would be sent twice."""
    for request_id in ("1", "2"):
        await store.add(new(request_id, webhook=HOOK))
    assert await claimed(store, "us:work", limit=1, lease_s=0.0) == ["1"]
    assert await store.finish("us:work", "1", ENDED, 111.0)
    ((_, *_),) = await store.claim_deliveries("us:webhooks", 112.0, 0.0, 9)
    assert await claimed(store, "us:work", lease_s=0.0) == ["2"]
    place.clock.now = 120.0
    assert await store.recover(frozenset({"us:work", "us:webhooks"}), 120.0, 3) == (0, 0)
    assert await sent(store, "us:webhooks") == []
    assert await store.recover(frozenset({"us:work"}), 120.0, 3) == (0, 0)
    assert await sent(store, "us:webhooks") == ["1"]
    assert await store.delivered("us:webhooks", "1", 121.0)
    assert await store.recover(frozenset({"others"}), 122.0, 0) == (0, 1)
