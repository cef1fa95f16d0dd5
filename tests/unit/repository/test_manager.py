"""Loading and reloading: what serves goes on until something better has proved to be READY."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fake_models import everybody_had_a_turn, until, version, world
from nerve.errors import ModelLoadFailed, ModelNotReady, VersionNotFound
from nerve.repository.fingerprint import stamp
from nerve.repository.lifecycle import State
from nerve.repository.records import FOLDER_GONE, RETRY_FIRST_S, IndexRow
from nerve.repository.wanted import WantedVersion
from nerve.types import VersionFiles

READY, UNAVAILABLE, LOADING = State.READY, State.UNAVAILABLE, State.LOADING
BROKEN = ModelLoadFailed("broken")

# --- loading ---


async def test_what_is_wanted_is_loaded() -> None:
    """Listed, announced, counted, lent out, with its config."""
    async with world() as made:
        assert await made.apply("a", {1: "x"}) == []
        assert await made.apply("b", {1: "y", 3: "z"}, version_policy="all", max_batch_size=5) == []
        assert made.catalog.index() == [
            IndexRow("a", 1, READY, ""),
            IndexRow("b", 1, READY, ""),
            IndexRow("b", 3, READY, ""),
        ]
        assert sorted(made.announced) == [("a", 1), ("b", 1), ("b", 3)]
        assert (made.ready("b", 3), made.stale("b"), made.loads("b", "loaded")) == (1, 0, 2)
        assert made.model("z").config.max_batch_size == 5
        assert made.answering("b", "1") == "y"


async def test_a_model_that_fails_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An expected error by its sentence, any other by its type too; both are logged."""
    async with world() as made:
        made.opener.failures["x"] = ModelLoadFailed("tokenizer.json is missing")
        made.opener.failures["y"] = ZeroDivisionError("division by zero")
        causes = await asyncio.gather(
            made.apply("a", {1: "x"}), made.apply("b", {1: "y"}), made.apply("c", {1: "z"})
        )
        assert list(causes) == [
            [(1, "tokenizer.json is missing")],
            [(1, "ZeroDivisionError: division by zero")],
            [],
        ]
        assert made.rows() == {
            ("a", 1): (UNAVAILABLE, "tokenizer.json is missing"),
            ("b", 1): (UNAVAILABLE, "ZeroDivisionError: division by zero"),
            ("c", 1): (READY, ""),
        }
        assert made.announced == [("c", 1)]
        assert made.ready("a", 1) in (None, 0)
        assert (made.stale("a"), made.loads("a", "failed")) == (1, 1)
        with pytest.raises(ModelNotReady, match=r"tokenizer\.json is missing"):
            made.answering("a")
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert {str(each.args[0]) for each in errors if isinstance(each.args, tuple)} == {"a", "b"}


async def test_a_version_that_fails_does_not_stop_the_others() -> None:
    """The highest that is READY answers, not the highest there is."""
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        await made.apply("a", {1: "one", 2: "two", 3: "bad"}, version_policy="all")
        assert made.rows() == {
            ("a", 1): (READY, ""),
            ("a", 2): (READY, ""),
            ("a", 3): (UNAVAILABLE, "broken"),
        }
        assert made.answering("a") == "two"
        with pytest.raises(ModelNotReady, match="version 3 is UNAVAILABLE: broken"):
            made.answering("a", "3")


async def test_files_that_show_that_they_cannot_be_loaded_are_not_opened() -> None:
    async with world() as made:
        assert await made.apply("a", {1: "?lacks"}) == [(1, "?lacks shows that")]
        assert made.rows() == {("a", 1): (UNAVAILABLE, "?lacks shows that")}
        assert made.opener.begun == []


async def test_warnings_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Again only when they are others."""
    async with world() as made:
        for _ in range(2):
            await made.apply("a", {1: "x"}, warnings=("folder '01' is ignored",))
        assert caplog.text.count("'01' is ignored") == 1
        await made.apply("a", {1: "x"}, warnings=("folder '02' is ignored",))
        assert caplog.text.count("'02' is ignored") == 1


async def test_only_what_the_policy_wants_is_loaded_and_found() -> None:
    async with world() as made:
        contents = {1: "one", 3: "three", 5: "five"}
        await made.apply("a", contents, version_policy={"specific": {"versions": [3, 1]}})
        assert sorted(made.opener.contents) == ["one", "three"]
        assert list(made.rows()) == [("a", 1), ("a", 3)]
        with pytest.raises(VersionNotFound) as caught:
            made.answering("a", "5")
        assert caught.value.known == (1, 3)


async def test_a_specific_version_that_is_missing() -> None:
    """It is listed with its reason; the others are served."""
    policy = {"specific": {"versions": [1, 7]}}
    async with world() as made:
        causes = await made.apply("a", {1: "x"}, version_policy=policy)
        assert causes == [(7, "named in config.yaml, but there is no such folder")]
        assert made.rows()["a", 1] == (READY, "")
        assert made.rows()["a", 7] == (UNAVAILABLE, causes[0][1])
        assert (made.answering("a"), made.stale("a")) == ("x", 1)
        with pytest.raises(ModelNotReady, match="no such folder"):
            made.answering("a", "7")
        assert await made.apply("a", {1: "x", 7: "y"}, version_policy=policy) == []
        assert (made.answering("a"), made.stale("a")) == ("y", 0)


async def test_as_many_loads_at_once_as_allowed() -> None:
    """The others are LOADING as well, but wait for their turn."""
    async with world(load_threads=2) as made:
        contents = {number: f"x{number}" for number in (1, 2, 3, 4)}
        gate = made.opener.hold(*contents.values())
        applying = made.begin("a", contents, version_policy="all")
        await until(lambda: made.opener.loading == 2)
        await everybody_had_a_turn()
        assert made.opener.loading == 2
        assert made.rows() == {("a", number): (LOADING, "") for number in (1, 2, 3, 4)}
        gate.set()
        await applying
        assert made.opener.most_loading == 2
        assert len(made.opener.opened) == 4


async def test_loading_is_a_state() -> None:
    """Told as such from the moment that the model is found; not lent out, and not ready."""
    async with world() as made:
        made.catalog.expect("a", asked=True)
        made.catalog.loaded = True

        def is_told(number: int) -> None:
            assert made.rows() == {("a", number): (LOADING, "")}
            assert not made.catalog.ready
            for named in (None, "1"):
                with pytest.raises(ModelNotReady) as caught:
                    made.answering("a", named)
                assert caught.value.state == "LOADING"

        is_told(0)
        gate = made.opener.hold("x")
        applying = made.begin("a", {1: "x"})
        await made.opener.has_begun("x")
        is_told(1)
        gate.set()
        await applying
        assert made.catalog.ready
        assert made.answering("a") == "x"


async def test_a_slow_load_holds_up_no_other_model() -> None:
    async with world(load_threads=2) as made:
        made.opener.hold("slow")
        slow = made.begin("a", {1: "slow"})
        await made.opener.has_begun("slow")
        for content in ("x", "y", "z"):
            await asyncio.wait_for(made.apply("b", {1: content}), 30)
            assert made.answering("b") == content
        assert not slow.done()


# --- a new version beside the old ---


async def test_a_new_version_takes_over_when_it_is_ready() -> None:
    """Whoever has the old one keeps it to the end; only then is it closed, once."""
    async with world() as made:
        await made.apply("a", {1: "old"})
        gate = made.opener.hold("new")
        applying = made.begin("a", {1: "old", 2: "new"})
        await made.opener.has_begun("new")
        assert made.answering("a") == "old"
        assert made.rows() == {("a", 1): (READY, ""), ("a", 2): (LOADING, "")}
        with made.catalog.lease("a", None) as first, made.catalog.lease("a", "1") as second:
            gate.set()
            assert await applying == []
            assert made.answering("a") == "new"
            assert first is second is made.model("old")
            assert made.rows() == {("a", 1): (State.UNLOADING, ""), ("a", 2): (READY, "")}
            with pytest.raises(ModelNotReady, match="version 1 is UNLOADING"):
                made.answering("a", "1")
            await everybody_had_a_turn()
            assert not made.model("old").closed
        await until(lambda: made.model("old").closed)
        assert made.rows()["a", 1] == (UNAVAILABLE, "unloaded")
        assert (made.ready("a", 1), made.ready("a", 2), made.stale("a")) == (0, 1, 0)
        assert made.opener.contents == ["old", "new"]


async def test_a_bad_new_version_keeps_the_old_one_serving() -> None:
    """The failure stays visible: in its row, in the model's reason and in the metric."""
    async with world() as made:
        made.catalog.loaded = True
        await made.apply("a", {1: "old"})
        made.opener.failures["bad"] = BROKEN
        gate = made.opener.hold("bad")
        applying = made.begin("a", {1: "old", 2: "bad"})
        await made.opener.has_begun("bad")
        assert made.catalog.ready  # no flap
        gate.set()
        assert await applying == [(2, "broken")]
        assert made.answering("a") == "old"
        assert made.rows() == {("a", 1): (READY, ""), ("a", 2): (UNAVAILABLE, "broken")}
        assert made.catalog.model("a").leading == (READY, "version 2: broken")
        assert made.stale("a") == 1
        assert made.catalog.ready
        assert made.opener.contents == ["old"]


async def test_at_a_fresh_start_the_next_older_version_stands_in() -> None:
    """Until the newest is mended."""
    async with world() as made:
        made.opener.failures.update({"bad": BROKEN, "worse": BROKEN})
        causes = await made.apply("a", {1: "one", 2: "two", 3: "worse", 4: "bad"})
        assert causes == [(4, "broken")]
        assert made.answering("a") == "two"
        assert made.opener.contents == ["two"]
        assert made.rows() == {
            ("a", 2): (READY, ""),
            ("a", 3): (UNAVAILABLE, "broken"),
            ("a", 4): (UNAVAILABLE, "broken"),
        }
        assert await made.apply("a", {1: "one", 2: "two", 3: "worse", 4: "good"}) == []
        await until(lambda: made.model("two").closed)
        assert made.rows() == {("a", 2): (UNAVAILABLE, "unloaded"), ("a", 4): (READY, "")}


async def test_as_many_stand_in_as_are_lacking() -> None:
    policy = {"latest": {"num_versions": 2}}
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        contents = {1: "one", 2: "two", 3: "three", 4: "bad"}
        await made.apply("a", contents, version_policy=policy)
        assert sorted(made.opener.contents) == ["three", "two"]


async def test_a_policy_change_reloads_nothing_that_stays() -> None:
    """Only what comes is opened, only what goes is closed."""
    contents = {1: "one", 2: "two", 3: "three"}
    async with world() as made:
        await made.apply("a", contents)
        await made.apply("a", contents, version_policy="all")
        assert made.opener.contents[0] == "three"
        assert sorted(made.opener.contents) == ["one", "three", "two"]
        await made.apply("a", contents, version_policy={"specific": {"versions": [1]}})
        assert made.answering("a") == "one"
        await until(lambda: made.model("two").closed and made.model("three").closed)
        await made.apply("a", contents, version_policy={"specific": {"versions": [1, 2]}})
        assert made.opener.begun.count("one") == 1
        assert made.opener.begun.count("two") == 2


async def test_routing_and_shadow_change_without_a_reload() -> None:
    async with world() as made:
        contents = {1: "one", 2: "two"}
        await made.apply("a", contents, routing={"weights": {1: 1, 2: 1}})
        await made.apply("a", contents, shadow={"version": 2})
        assert made.answering("a") == "one"
        assert made.catalog.shadow_of("a") == (2, 1.0)
        assert sorted(made.opener.begun) == ["one", "two"]


async def test_a_shadow_alone_is_no_reason_to_unload_what_answers() -> None:
    """It gets copies only: the version that is wanted next is broken, so the old one goes on."""
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        contents = {1: "one", 2: "bad", 3: "three"}
        await made.apply("a", contents, version_policy={"specific": {"versions": [1]}})
        await made.apply(
            "a", contents, version_policy={"specific": {"versions": [2]}}, shadow={"version": 3}
        )
        assert made.answering("a") == "one"


# --- reloading in place ---


async def test_a_reload_in_place_is_ready_all_the_time() -> None:
    async with world() as made:
        await made.apply("a", {1: "old"})
        states: set[tuple[State, float | None]] = set()
        made.catalog.on_change(lambda: states.add((made.rows()["a", 1][0], made.ready("a", 1))))
        gate = made.opener.hold("new")
        applying = made.begin("a", {1: "new"})
        await made.opener.has_begun("new")
        with made.catalog.lease("a", "1") as lent:
            gate.set()
            await applying
            assert made.answering("a", "1") == "new"
            assert lent is made.model("old")
            assert not made.model("old").closed
        await until(lambda: made.model("old").closed)
        assert states == {(READY, 1.0)}
        assert made.rows() == {("a", 1): (READY, "")}


async def test_a_config_change_reloads() -> None:
    async with world() as made:
        await made.apply("a", {1: "x"})
        await made.apply("a", {1: "x"}, max_batch_size=7)
        assert made.model("x").config.max_batch_size == 7
        await until(lambda: made.opener.opened[0].closed)


async def test_a_failed_reload_is_told_and_the_old_one_serves() -> None:
    """Until the bytes are good again: those of before are loaded already."""
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.failures["bad"] = BROKEN
        assert await made.apply("a", {1: "bad"}) == [(1, "broken")]
        assert made.answering("a", "1") == "old"
        assert made.rows() == {("a", 1): (READY, "broken")}
        assert made.catalog.model("a").leading == (READY, "version 1: broken")
        assert (made.stale("a"), made.ready("a", 1)) == (1, 1)
        assert await made.apply("a", {1: "old"}) == []
        assert made.rows() == {("a", 1): (READY, "")}
        assert made.stale("a") == 0
        assert made.opener.contents == ["old"]


async def test_a_failed_reload_stays_told_while_it_is_tried_again() -> None:
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.failures["bad"] = BROKEN
        await made.apply("a", {1: "bad"})
        gate = made.opener.hold("bad")
        trying = asyncio.create_task(made.apply("a", {1: "bad"}, again=True))
        await made.opener.has_begun("bad", 2)
        assert made.rows() == {("a", 1): (READY, "broken")}
        gate.set()
        await trying


async def test_a_broken_model_config_keeps_what_serves(caplog: pytest.LogCaptureFixture) -> None:
    """Told in the index, the log (once) and the metrics."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        for _ in range(2):
            causes = await made.apply("a", {1: "y"}, problem="config.yaml: no")
            assert causes == [(0, "config.yaml: no")]
        assert made.answering("a") == "x"
        assert made.rows() == {("a", 1): (READY, "config.yaml: no")}
        assert (made.stale("a"), made.loads("a", "failed")) == (1, 1)
        assert caplog.text.count("what served goes on: config.yaml: no") == 1
        assert await made.apply("a", {1: "x"}) == []
        assert (made.rows(), made.stale("a")) == ({("a", 1): (READY, "")}, 0)


# --- folders that go ---


async def test_a_version_whose_folder_is_gone_is_unloaded_when_others_are_ready() -> None:
    """Its row vanishes."""
    async with world() as made:
        await made.apply("a", {1: "one", 2: "two"}, version_policy="all")
        with made.catalog.lease("a", "2"):
            assert await made.apply("a", {1: "one"}, version_policy="all") == []
            assert made.answering("a") == "one"
            assert made.rows()["a", 2][0] is State.UNLOADING
        await until(lambda: made.model("two").closed)
        assert list(made.rows()) == [("a", 1)]
        with pytest.raises(VersionNotFound):
            made.answering("a", "2")


async def test_a_failed_version_whose_folder_is_gone_vanishes() -> None:
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        await made.apply("a", {1: "one", 2: "bad"})
        await made.apply("a", {1: "one"})
        assert made.rows() == {("a", 1): (READY, "")}
        assert made.stale("a") == 0


async def test_the_last_version_serves_on_when_its_folder_is_gone() -> None:
    """With a reason; and is loaded no second time when the folder is back."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        await made.apply("a", {}, problem="no model.onnx found")
        assert made.answering("a") == "x"
        assert made.rows() == {("a", 1): (READY, "no model.onnx found")}
        assert made.stale("a") == 1
        await made.apply("a", {1: "x"})
        assert made.rows() == {("a", 1): (READY, "")}
        assert made.opener.contents == ["x"]


async def test_the_last_ready_version_serves_on_when_only_broken_ones_are_left() -> None:
    async with world() as made:
        await made.apply("a", {1: "x"})
        made.opener.failures["bad"] = BROKEN
        assert await made.apply("a", {2: "bad"}) == [(2, "broken")]
        assert made.answering("a") == "x"
        assert made.rows() == {("a", 1): (READY, FOLDER_GONE), ("a", 2): (UNAVAILABLE, "broken")}
        await made.apply("a", {2: "good"})
        await until(lambda: made.model("x").closed)
        assert made.rows() == {("a", 2): (READY, "")}


async def test_a_version_named_in_the_config_serves_on_when_its_folder_is_gone() -> None:
    """As long as it is the last one; that it is stale is told."""
    policy = {"specific": {"versions": [1]}}
    async with world() as made:
        await made.apply("a", {1: "one", 2: "two"}, version_policy=policy)
        causes = await made.apply("a", {2: "two"}, version_policy=policy)
        assert made.answering("a") == "one"
        assert causes == [(1, made.rows()["a", 1][1])]
        assert "gone" in causes[0][1] or "no such folder" in causes[0][1]
        assert made.stale("a") == 1


async def test_a_version_named_in_the_config_stays_listed_when_its_folder_is_gone() -> None:
    policy = {"specific": {"versions": [1, 2]}}
    async with world() as made:
        await made.apply("a", {1: "one", 2: "two"}, version_policy=policy)
        await made.apply("a", {2: "two"}, version_policy=policy)
        await until(lambda: made.model("one").closed)
        assert made.answering("a") == "two"
        assert made.rows()["a", 1][0] is UNAVAILABLE
        assert "no such folder" in made.rows()["a", 1][1]
        assert made.stale("a") == 1


# --- trying again ---


async def test_identical_broken_bytes_are_not_tried_again_at_once() -> None:
    """Other bytes are, and the same ones when somebody asks."""
    async with world() as made:
        made.opener.failures.update({"bad": BROKEN, "worse": BROKEN})
        for _ in range(3):
            assert await made.apply("a", {1: "bad"}) == [(1, "broken")]
        assert made.opener.begun == ["bad"]
        await made.apply("a", {1: "bad"}, again=True)
        assert made.opener.begun == ["bad", "bad"]
        await made.apply("a", {1: "worse"})
        assert made.opener.begun == ["bad", "bad", "worse"]
        assert made.rows() == {("a", 1): (UNAVAILABLE, "broken")}


async def test_identical_broken_bytes_are_due_again_later_and_later() -> None:
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        for attempt in range(3):
            before = time.monotonic()
            await made.apply("a", {1: "bad"}, again=True)
            due, retry_at = made.manager.retries(before)
            assert due == []
            assert retry_at is not None
            assert retry_at - time.monotonic() <= RETRY_FIRST_S * 2**attempt <= retry_at - before
            assert made.manager.retries(retry_at) == (["a"], None)


async def test_nothing_is_due_that_only_other_files_can_mend() -> None:
    """Nor what was mended, unloaded or removed."""
    async with world() as made:
        made.opener.failures["bad"] = BROKEN
        later = time.monotonic() + 1e6
        await made.apply("a", {1: "?lacks"})
        await made.apply("b", {1: "x"}, problem="config.yaml: no")
        await made.apply("c", {1: "bad"})
        await made.apply("c", {1: "good"})
        await made.apply("d", {1: "bad"})
        await made.manager.unload("d")
        await made.apply("e", {1: "bad"})
        await made.manager.remove("e")
        await made.apply("f", {1: "bad", 2: "good"}, version_policy="all")
        await made.apply("f", {2: "good"}, version_policy="all")
        assert made.manager.retries(later) == ([], None)


# --- files that change meanwhile ---


def on_disk(path: Path, number: int = 1) -> WantedVersion:
    """A version whose graph exists."""
    files = VersionFiles(number, path, {})
    return replace(version(number, path.name), files=files, stamp=stamp([path]))


async def test_a_load_whose_files_changed_meanwhile_is_discarded(tmp_path: Path) -> None:
    """It may be half of one model and half of another; what served goes on."""
    async with world() as made:
        await made.apply("a", {1: "old"})
        graph = tmp_path / "new"
        graph.write_text("half")
        gate = made.opener.hold("new")
        applying = made.begin("a", {1: on_disk(graph)})
        await made.opener.has_begun("new")
        graph.write_text("whole")
        os.utime(graph, ns=(1, 1))
        gate.set()
        assert await applying == [(1, "its files changed while it was being loaded")]
        await until(lambda: made.model("new").closed)
        assert made.answering("a") == "old"
        assert made.rows()["a", 1][0] is READY
        assert (made.loads("a", "discarded"), made.loads("a", "failed")) == (1, 0)
        assert await made.apply("a", {1: on_disk(graph)}) == []  # at once: it did not fail
        assert made.answering("a") == "new"


async def test_an_obsolete_load_is_given_up_for_a_newer_one() -> None:
    async with world() as made:
        made.opener.hold("first")
        first = made.begin("a", {1: "first"})
        await made.opener.has_begun("first")
        assert await asyncio.wait_for(made.apply("a", {1: "second"}), 30) == []
        await first
        assert made.answering("a") == "second"
        assert made.opener.contents == ["second"]
        assert made.loads("a", "discarded") == 1
        assert made.rows() == {("a", 1): (READY, "")}


async def test_an_obsolete_load_is_given_up_when_its_folder_is_gone() -> None:
    async with world() as made:
        await made.apply("a", {1: "one"})
        made.opener.hold("two")
        first = made.begin("a", {1: "one", 2: "two"})
        await made.opener.has_begun("two")
        assert await asyncio.wait_for(made.apply("a", {1: "one"}), 30) == []
        await first
        assert made.rows() == {("a", 1): (READY, "")}


async def test_a_load_that_is_not_obsolete_goes_on() -> None:
    """Another version has come meanwhile; the first is not begun anew."""
    async with world() as made:
        gate = made.opener.hold("one")
        first = made.begin("a", {1: "one"}, version_policy="all")
        await made.opener.has_begun("one")
        second = made.begin("a", {1: "one", 2: "two"}, version_policy="all")
        await everybody_had_a_turn()
        gate.set()
        assert await first == await second == []
        assert made.opener.contents == ["one", "two"]


async def test_nobody_stands_in_for_what_is_only_obsolete() -> None:
    """The newer content is loaded, not an older version first."""
    async with world() as made:
        made.opener.hold("first")
        first = made.begin("a", {1: "older", 2: "first"})
        await made.opener.has_begun("first")
        assert await made.apply("a", {1: "older", 2: "second"}) == []
        await first
        assert made.opener.begun == ["first", "second"]
        assert made.rows() == {("a", 2): (READY, "")}


async def test_nothing_is_unloaded_that_is_wanted_again_meanwhile() -> None:
    """The policy is turned back while the new version loads: the old one is not loaded anew."""
    contents = {1: "one", 2: "two"}
    async with world() as made:
        await made.apply("a", {1: "one"})
        gate = made.opener.hold("two")
        first = made.begin("a", contents)
        await made.opener.has_begun("two")
        second = made.begin("a", contents, version_policy={"specific": {"versions": [1]}})
        await everybody_had_a_turn()
        gate.set()
        await asyncio.gather(first, second)
        assert made.answering("a") == "one"
        assert made.opener.begun == ["one", "two"]


async def test_of_many_changes_only_the_last_is_loaded() -> None:
    """Those that came while another version was loaded are obsolete before they begin."""
    async with world() as made:
        made.opener.hold("x1", "x2", "x3")
        gate = made.opener.hold("steady")
        tasks = []
        for content in ("x1", "x2", "x3", "last"):
            tasks.append(made.begin("a", {1: "steady", 2: content}, version_policy="all"))
            await everybody_had_a_turn()
        gate.set()
        await until(lambda: made.rows().get(("a", 2)) == (READY, ""))
        await asyncio.gather(*tasks)
        assert made.answering("a") == "last"
        assert sorted(made.opener.contents) == ["last", "steady"]


async def test_a_discarded_model_that_cannot_be_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That is logged, and stops nothing."""
    async with world() as made:
        graph = tmp_path / "half"
        graph.write_text("half")
        gate = made.opener.hold("half")
        made.opener.close_failures["half"] = OSError("device is gone")
        applying = made.begin("a", {1: on_disk(graph), 2: "two"}, version_policy="all")
        await made.opener.has_begun("half")
        graph.write_text("whole")
        gate.set()
        assert await applying == [(1, "its files changed while it was being loaded")]
        assert made.answering("a") == "two"
        await until(lambda: "could not be closed" in caplog.text)
        assert made.loads("a", "discarded") == 1


class Looked(WantedVersion):
    """A version whose files are looked at until the test says that it is enough."""

    looking, enough = threading.Event(), threading.Event()

    def untouched(self) -> bool:
        """Wait in the thread."""
        self.looking.set()
        return self.enough.wait(30)


async def test_a_load_given_up_when_it_was_nearly_over_is_closed() -> None:
    """It has been opened, and only its files are looked at a last time."""
    async with world() as made:
        plain = version(1, "first")
        last = Looked(1, plain.files, plain.config, plain.identity, plain.stamp)
        first = made.begin("a", {1: last})
        try:
            await until(last.looking.is_set)
            second = made.begin("a", {1: "second"})
            await everybody_had_a_turn()
        finally:
            last.enough.set()
        await asyncio.gather(first, second)
        assert made.answering("a") == "second"
        await until(lambda: made.model("first").closed)


async def test_apply_that_is_cancelled_gives_its_load_up() -> None:
    async with world() as made:
        await made.apply("a", {1: "old"})
        made.opener.hold("new")
        applying = made.begin("a", {1: "new"})
        await made.opener.has_begun("new")
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
        assert applying.cancelled()
        assert made.opener.loading == 0
        assert made.answering("a") == "old"
        assert await asyncio.wait_for(made.apply("a", {1: "newer"}), 30) == []
