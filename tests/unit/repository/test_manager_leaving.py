"""Unloading, removing and closing: nothing is freed under its users, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from fake_models import PATIENCE_S, everybody_had_a_turn, until, world
from nerve.errors import ModelLoadFailed, ModelNotFound, ModelNotReady
from nerve.repository.lifecycle import State
from nerve.repository.records import IndexRow

READY, UNAVAILABLE, LOADING, UNLOADING = (
    State.READY,
    State.UNAVAILABLE,
    State.LOADING,
    State.UNLOADING,
)
BROKEN = ModelLoadFailed("broken")

# --- unload ---


async def test_unload_returns_when_it_is_begun() -> None:
    """Requests in flight finish, new ones are refused at once; the model stays listed."""
    async with world() as made:
        await made.apply("a", {1: "one", 2: "two"}, version_policy="all")
        with made.catalog.lease("a", "1"):
            await made.manager.unload("a")
            await until(lambda: made.model("two").closed)
            assert made.rows() == {("a", 1): (UNLOADING, ""), ("a", 2): (UNAVAILABLE, "unloaded")}
            for number, state in ((None, "UNAVAILABLE"), ("1", "UNLOADING"), ("2", "UNAVAILABLE")):
                with pytest.raises(ModelNotReady) as caught:
                    made.answering("a", number)
                assert caught.value.state == state
            assert not made.model("one").closed
        await until(lambda: made.model("one").closed)
        assert made.catalog.index() == [
            IndexRow("a", number, UNAVAILABLE, "unloaded") for number in (1, 2)
        ]
        assert (made.ready("a", 1), made.stale("a")) == (0, 0)


async def test_unload_can_wait_for_the_last_user() -> None:
    async with world() as made:
        await made.apply("a", {1: "x"})
        with made.catalog.lease("a", None):
            unloading = asyncio.create_task(made.manager.unload("a", wait=True))
            await until(lambda: made.rows()["a", 1][0] is UNLOADING)
            await everybody_had_a_turn()
            assert not unloading.done()
        await unloading
        assert made.model("x").closed


async def test_waiting_counts_although_the_unload_was_begun_before() -> None:
    """`nerve models unload`, and then once more with `--wait`."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        with made.catalog.lease("a", None):
            await made.manager.unload("a")
            unloading = asyncio.create_task(made.manager.unload("a", wait=True))
            await everybody_had_a_turn()
            assert not unloading.done()
        await unloading
        assert made.model("x").closed


async def test_unloading_what_is_not_loaded() -> None:
    """No error, as with Triton; a model that is not there is one."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        for _ in range(2):
            await made.manager.unload("a", wait=True)
        made.catalog.expect("b", asked=False)
        await made.manager.unload("b", wait=True)
        with pytest.raises(ModelNotFound):
            await made.manager.unload("c")


async def test_unload_gives_up_a_load() -> None:
    """The first one of a version, whose row tells what happened to it."""
    async with world() as made:
        made.opener.hold("x")
        applying = made.begin("a", {1: "x"})
        await made.opener.has_begun("x")
        await asyncio.wait_for(made.manager.unload("a", wait=True), PATIENCE_S)
        await applying
        assert made.opener.opened == []
        state, reason = made.rows()["a", 1]
        assert state is UNAVAILABLE
        assert "changed" not in reason  # its files did not
        assert made.stale("a") == 0


async def test_unload_gives_up_a_reload() -> None:
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.hold("new")
        applying = made.begin("a", {1: "new"})
        await made.opener.has_begun("new")
        await asyncio.wait_for(made.manager.unload("a", wait=True), PATIENCE_S)
        await applying
        assert made.opener.contents == ["old"]
        assert made.rows() == {("a", 1): (UNAVAILABLE, "unloaded")}


async def test_nobody_stands_in_for_what_is_unloaded_while_it_loads() -> None:
    """An older version would be loaded, only to be unloaded."""
    async with world() as made:
        made.opener.hold("new", "older")
        applying = made.begin("a", {1: "older", 2: "new"})
        await made.opener.has_begun("new")
        unloading = asyncio.create_task(made.manager.unload("a", wait=True))
        await everybody_had_a_turn()
        assert made.opener.begun == ["new"]
        await asyncio.wait_for(unloading, PATIENCE_S)
        await applying


async def test_loading_again_while_the_old_copy_still_drains() -> None:
    """UNLOADING to LOADING to READY; the old copy is closed by its last user."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        gate = made.opener.hold("x")
        with made.catalog.lease("a", None) as old:
            await made.manager.unload("a")
            assert made.rows()["a", 1][0] is UNLOADING
            applying = made.begin("a", {1: "x"})
            await made.opener.has_begun("x", 2)
            assert made.rows()["a", 1] == (LOADING, "")
            gate.set()
            assert await applying == []
            assert made.rows()["a", 1] == (READY, "")
            with made.catalog.lease("a", None) as new:
                assert new is not old
            assert old is made.opener.opened[0]
            assert not made.opener.opened[0].closed
        await until(lambda: made.opener.opened[0].closed)
        assert made.rows()["a", 1] == (READY, "")
        assert made.answering("a") == "x"
        assert made.ready("a", 1) == 1


async def test_a_version_is_unloaded_when_its_last_copy_is() -> None:
    """Not when an earlier one happens to be given back."""
    async with world() as made:
        with ExitStack() as first, ExitStack() as second:
            await made.apply("a", {1: "x"})
            first.enter_context(made.catalog.lease("a", None))
            await made.manager.unload("a")
            await made.apply("a", {1: "y"})
            second.enter_context(made.catalog.lease("a", None))
            await made.manager.unload("a")
            first.close()
            await until(lambda: made.model("x").closed)
            await everybody_had_a_turn()
            assert made.rows()["a", 1][0] is UNLOADING
            second.close()
            await until(lambda: made.model("y").closed)
            assert made.rows()["a", 1] == (UNAVAILABLE, "unloaded")


async def test_a_failed_version_is_not_tried_again_once_unloaded() -> None:
    """And is tried at once when it is asked for."""
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        await made.apply("a", {1: "bad"})
        await made.manager.unload("a")
        assert made.manager.retries(1e12) == ([], None)
        assert made.stale("a") == 0
        await made.apply("a", {1: "bad"})
        assert made.opener.begun == ["bad", "bad"]


# --- remove ---


async def test_a_model_that_is_removed_is_unknown_at_once() -> None:
    """And closed after its last user; its gauges vanish."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        with made.catalog.lease("a", None):
            await made.manager.remove("a")
            with pytest.raises(ModelNotFound):
                made.answering("a")
            assert made.rows() == {}
            assert (made.ready("a", 1), made.stale("a")) == (None, None)
            await everybody_had_a_turn()
            assert not made.model("x").closed
        await until(lambda: made.model("x").closed)
        assert (made.ready("a", 1), made.stale("a")) == (None, None)
        await made.manager.remove("a")


async def test_removing_gives_up_loads() -> None:
    async with world() as made:
        made.opener.hold("x")
        applying = made.begin("a", {1: "x"})
        await made.opener.has_begun("x")
        await asyncio.wait_for(made.manager.remove("a"), PATIENCE_S)
        await applying
        assert made.rows() == {}
        assert made.opener.opened == []
        assert made.stale("a") is None


async def test_a_removed_model_is_unknown_although_a_load_is_slow_to_end() -> None:
    """Some work cannot be broken off: who asks meanwhile is told that there is no such model."""
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.hold("new")
        made.opener.slow_to_end = asyncio.Event()
        applying = made.begin("a", {1: "new"})
        await made.opener.has_begun("new")
        removing = asyncio.create_task(made.manager.remove("a"))
        await everybody_had_a_turn()
        try:
            with pytest.raises(ModelNotFound):
                made.answering("a")
        finally:
            made.opener.slow_to_end.set()
            await asyncio.gather(removing, applying)
        await until(lambda: made.model("old").closed)


async def test_a_removal_that_is_cancelled_leaves_nothing_behind() -> None:
    """The server stops meanwhile."""
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.hold("new")
        made.opener.slow_to_end = asyncio.Event()
        made.begin("a", {1: "new"})
        await made.opener.has_begun("new")
        removing = asyncio.create_task(made.manager.remove("a"))
        await everybody_had_a_turn()
        removing.cancel()
        closing = asyncio.create_task(made.manager.aclose())
        await everybody_had_a_turn()
        made.opener.slow_to_end.set()
        await asyncio.wait_for(closing, PATIENCE_S)
        await asyncio.gather(removing, return_exceptions=True)
        assert made.model("old").closed


async def test_a_model_that_comes_back_while_it_is_removed_is_loaded() -> None:
    """`mv` away and back: what is asked for last counts."""
    async with world() as made:
        made.opener.hold("x")
        applying = made.begin("a", {1: "x"})
        await made.opener.has_begun("x")
        removing = asyncio.create_task(made.manager.remove("a"))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(made.apply("a", {1: "y"}), PATIENCE_S) == []
        await asyncio.gather(removing, applying)
        assert made.answering("a") == "y"
        assert (made.ready("a", 1), made.stale("a")) == (1, 0)


async def test_a_model_that_comes_back_is_a_new_one() -> None:
    """While users of the old one are still there."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        with made.catalog.lease("a", None):
            await made.manager.remove("a")
            await made.apply("a", {1: "y"})
            assert made.answering("a") == "y"
        await until(lambda: made.model("x").closed)
        assert made.rows() == {("a", 1): (READY, "")}
        assert made.ready("a", 1) == 1


# --- the end ---


async def test_closing_waits_for_every_lease() -> None:
    """What is lent is not freed; what is asked for meanwhile is refused."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        await made.apply("b", {1: "y"})
        lent, other = made.model("x"), made.model("y")
        with made.catalog.lease("a", None) as first:
            with made.catalog.lease("a", "1") as second:
                assert first is second is lent
                closing = asyncio.create_task(made.manager.aclose())
                await everybody_had_a_turn()
                assert other.closed
                assert not lent.closed
                assert made.rows()["a", 1][0] is UNLOADING
                assert made.rows()["b", 1] == (UNAVAILABLE, "unloaded")
                for number in (None, "1"):
                    with pytest.raises(ModelNotReady) as caught:
                        made.answering("a", number)
                    assert caught.value.state == "UNLOADING"
            await everybody_had_a_turn()
            assert not lent.closed
            assert not closing.done()
        await closing
        assert lent.closed
        assert made.rows()["a", 1] == (UNAVAILABLE, "unloaded")
        assert made.ready("a", 1) == 0


async def test_leases_before_do_not_count() -> None:
    """Given back long ago: closing waits only for those of now."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        assert made.answering("a") == made.answering("a")
        with made.catalog.lease("a", None):
            closing = asyncio.create_task(made.manager.aclose())
            await everybody_had_a_turn()
            assert not closing.done()
        await closing


async def test_closing_waits_for_copies_that_were_replaced_before() -> None:
    async with world() as made:
        await made.apply("a", {1: "old"})
        with made.catalog.lease("a", None):
            await made.apply("a", {1: "new"})
            closing = asyncio.create_task(made.manager.aclose())
            await until(lambda: made.model("new").closed)
            assert not closing.done()
        await closing
        assert made.model("old").closed


async def test_closing_twice_is_no_error() -> None:
    """The fake refuses to be closed a second time."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        made.catalog.loaded = True
        await made.manager.aclose()
        await made.manager.aclose()
        with pytest.raises(ModelNotReady, match="unloaded"):
            made.answering("a")
        assert not made.catalog.ready


async def test_a_model_that_cannot_be_closed_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Closing is over when every version is free, whatever one of them said."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        await made.apply("b", {1: "y"})
        made.model("x").close_failure = OSError("device is gone")
        with made.catalog.lease("b", None):
            closing = asyncio.create_task(made.manager.aclose())
            await everybody_had_a_turn()
            assert made.model("x").closed
            assert not closing.done()
        await closing
        assert made.model("y").closed
        assert made.rows()["a", 1] == (UNAVAILABLE, "unloaded")
    assert "model a version 1 could not be closed" in caplog.text


async def test_closing_during_loads() -> None:
    """They are given up, nobody stands in for them, and nothing is loaded afterwards."""
    async with world() as made:
        made.opener.hold("x", "older", "y")
        tasks = [made.begin("a", {1: "older", 2: "x"}), made.begin("b", {1: "y"})]
        await made.opener.has_begun("x")
        await made.opener.has_begun("y")
        await asyncio.wait_for(made.manager.aclose(), PATIENCE_S)
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        assert made.opener.loading == 0
        assert sorted(made.opener.begun) == ["x", "y"]
        with pytest.raises(ModelNotReady):
            made.answering("a")
        causes = await made.apply("c", {1: "z"})
        assert causes
        assert made.opener.opened == []


async def test_closing_during_the_wait_for_a_turn_to_load() -> None:
    async with world(load_threads=1) as made:
        made.opener.hold("x", "y")
        tasks = [made.begin(name, {1: content}) for name, content in (("a", "x"), ("b", "y"))]
        await until(lambda: made.opener.begun)
        await asyncio.wait_for(made.manager.aclose(), PATIENCE_S)
        await asyncio.gather(*tasks)
        assert len(made.opener.begun) == 1
