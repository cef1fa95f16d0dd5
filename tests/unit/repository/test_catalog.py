"""Finding a model, lending it out, listing all; what is not there is told by name."""

from __future__ import annotations

import asyncio

import pytest

from fake_models import World, everybody_had_a_turn, world
from nerve.errors import (
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    NerveError,
    NoDefaultModel,
    VersionNotFound,
)
from nerve.repository.lifecycle import State
from nerve.repository.records import NOT_LOADED, IndexRow

READY, UNAVAILABLE, LOADING = State.READY, State.UNAVAILABLE, State.LOADING

# --- names and versions ---


async def test_a_model_that_is_not_there() -> None:
    """The error lists what is."""
    async with world() as made:
        await made.apply("b", {1: "x"})
        await made.apply("a", {1: "y"})
        for name in ("c", "", "A", "a/1", "é"):
            with pytest.raises(ModelNotFound) as caught:
                made.answering(name)
            assert (caught.value.model, caught.value.known) == (name, ("a", "b"))


@pytest.mark.parametrize(
    "number",
    [
        *["2", "0", "01", "-1", "+1", "1.0", "", " 1", "1 ", "1_", "abc", "latest", "null"],
        *["٣", "٠٣", "１", "²", "Ⅲ", "1e0", "0x1", "é", "\x00", "😀"],
        *["9" * 30, "1" + "0" * 5000, "0" * 5000 + "1"],
    ],
    ids=lambda number: ascii(number)[:10],
)
async def test_a_version_that_is_not_there(number: str) -> None:
    """Folder names are the only version numbers: what is written otherwise names no version."""
    async with world() as made:
        await made.apply("a", {1: "x", 3: "y"}, version_policy="all")
        with pytest.raises(VersionNotFound) as caught:
            made.answering("a", number)
        assert (caught.value.version, caught.value.known) == (number, (1, 3))


@pytest.mark.parametrize("number", ["7", "-1", "abc", "٣", "9" * 5000], ids=lambda n: ascii(n)[:10])
async def test_any_version_of_any_model_that_cannot_answer(number: str) -> None:
    """Whatever the client wrote, what comes is an error that can be told."""
    async with world() as made:
        await made.apply("a", {}, problem="no model.onnx found")
        await made.apply("b", {1: "x"})
        made.catalog.expect("d", asked=False)
        for name in ("a", "b", "c", "d", None):
            with pytest.raises(NerveError):
                made.answering(name, number)


async def test_versions_are_compared_as_numbers() -> None:
    async with world() as made:
        await made.apply("a", {9: "nine", 10: "ten"}, version_policy="all")
        assert made.answering("a") == "ten"
        assert made.answering("a", "9") == "nine"


async def test_a_model_that_cannot_be_used_at_all_says_why() -> None:
    """Whether a version is named or not."""
    async with world() as made:
        await made.apply("a", {1: "x"}, problem="config.yaml: max_batch: unknown key")
        for number in (None, "1"):
            with pytest.raises(ModelNotReady, match=r"config\.yaml: max_batch"):
                made.answering("a", number)


async def test_a_model_that_nobody_asked_for_says_how_to() -> None:
    async with world() as made:
        made.catalog.expect("a", asked=False)
        assert made.catalog.index() == [IndexRow("a", 0, UNAVAILABLE, "")]
        assert made.catalog.model("a").leading == (UNAVAILABLE, NOT_LOADED)
        for number in (None, "1"):
            with pytest.raises(ModelNotReady, match="not loaded"):
                made.answering("a", number)


# --- the default model ---


async def test_the_only_model_is_the_default() -> None:
    async with world() as made:
        with pytest.raises(NoDefaultModel):
            made.answering()
        await made.apply("a", {1: "x"})
        assert made.answering() == made.answering(None, "1") == "x"


async def test_the_only_model_is_the_default_even_if_it_fails() -> None:
    """The caller learns why, not that there is no model."""
    async with world() as made:
        made.opener.failures["x"] = ModelLoadFailed("broken")
        await made.apply("a", {1: "x"})
        with pytest.raises(ModelNotReady, match="broken"):
            made.answering()


async def test_the_only_usable_model_is_the_default() -> None:
    """Others fail to load, are no models, have a broken config, or were never asked for."""
    async with world() as made:
        made.opener.failures["bad"] = ModelLoadFailed("broken")
        await made.apply("a", {1: "bad"})
        await made.apply("b", {1: "good"})
        await made.apply("c", {}, problem="no model.onnx found")
        made.catalog.expect("d", asked=False)
        assert made.answering() == "good"


async def test_several_models_have_no_default() -> None:
    """The error names those that could be meant."""
    async with world() as made:
        for name in ("b", "a"):
            await made.apply(name, {1: "x"})
        await made.apply("c", {}, problem="no model.onnx found")
        with pytest.raises(NoDefaultModel) as caught:
            made.answering()
        assert caught.value.known == ("a", "b")


async def test_no_usable_model_is_no_default() -> None:
    async with world() as made:
        for name in ("b", "a"):
            await made.apply(name, {}, problem="no model.onnx found")
        with pytest.raises(NoDefaultModel) as caught:
            made.answering()
        assert caught.value.known == ()


async def test_the_configured_default() -> None:
    """It wins over the only usable one, and is not replaced when it fails."""
    async with world(default_model="b") as made:
        await made.apply("a", {1: "x"})
        with pytest.raises(ModelNotFound, match="'b'"):
            made.answering()
        made.opener.failures["y"] = ModelLoadFailed("broken")
        await made.apply("b", {1: "y"})
        with pytest.raises(ModelNotReady, match="broken"):
            made.answering()
        await made.apply("b", {1: "z"})
        assert made.answering() == "z"
        assert made.answering("a") == "x"


# --- routing and shadow ---


async def answered(made: World, name: str, times: int = 200) -> set[str]:
    """What answered so many requests without a version."""
    return {made.answering(name) for _ in range(times)}


async def test_routing_splits_requests_without_a_version() -> None:
    """Those that name one get it, whatever its weight."""
    async with world() as made:
        contents = {1: "one", 2: "two", 3: "three"}
        await made.apply("a", contents, version_policy="all", routing={"weights": {1: 50, 2: 50}})
        assert await answered(made, "a") == {"one", "two"}
        assert made.answering("a", "3") == "three"


async def test_routing_leaves_out_what_is_not_ready() -> None:
    async with world() as made:
        made.opener.failures["one"] = ModelLoadFailed("broken")
        await made.apply("a", {1: "one", 2: "two"}, routing={"weights": {1: 99, 2: 1}})
        assert await answered(made, "a", 20) == {"two"}


async def test_a_shadow_answers_only_requests_that_name_it() -> None:
    async with world() as made:
        contents = {1: "one", 2: "two"}
        await made.apply("a", contents, shadow={"version": 2, "fraction": 0.25})
        assert await answered(made, "a", 20) == {"one"}
        assert made.answering("a", "2") == "two"
        assert made.catalog.shadow_of("a") == (2, 0.25)


async def test_there_is_no_shadow_unless_it_is_ready() -> None:
    async with world() as made:
        assert made.catalog.shadow_of("a") is None
        await made.apply("a", {1: "one"})
        assert made.catalog.shadow_of("a") is None
        made.opener.failures["bad"] = ModelLoadFailed("broken")
        await made.apply("a", {1: "one", 2: "bad"}, shadow={"version": 2})
        assert made.catalog.shadow_of("a") is None
        assert made.answering("a") == "one"


# --- leases ---


async def test_a_lease_is_given_back_when_its_user_fails() -> None:
    """An error and a cancelled caller."""
    async with world() as made:
        await made.apply("a", {1: "x"})
        with pytest.raises(ZeroDivisionError), made.catalog.lease("a", None):
            raise ZeroDivisionError

        async def use() -> None:
            with made.catalog.lease("a", None):
                await asyncio.Event().wait()

        user = asyncio.create_task(use())
        await everybody_had_a_turn()
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        assert user.cancelled()
        await asyncio.wait_for(made.manager.aclose(), 30)
        assert made.model("x").closed


# --- the index, readiness, listeners ---


async def test_the_index_is_in_order() -> None:
    """By name, then by number; a model without versions is version 0."""
    async with world() as made:
        await made.apply("b", {10: "x", 9: "y"}, version_policy="all")
        await made.apply("a", {}, problem="no model.onnx found")
        made.catalog.expect("c", asked=True)
        assert made.catalog.index() == [
            IndexRow("a", 0, UNAVAILABLE, "no model.onnx found"),
            IndexRow("b", 9, READY, ""),
            IndexRow("b", 10, READY, ""),
            IndexRow("c", 0, LOADING, ""),
        ]
        assert [each.name for each in made.catalog.models()] == ["a", "b", "c"]


async def test_what_is_wrong_with_the_whole_model_stands_with_what_serves() -> None:
    async with world() as made:
        await made.apply("a", {1: "x"})
        await made.apply("a", {1: "x"}, problem="config.yaml: not valid YAML")
        assert made.catalog.index() == [IndexRow("a", 1, READY, "config.yaml: not valid YAML")]
        assert made.stale("a") == 1


async def test_expecting_a_model_never_takes_back_that_it_was_asked_for() -> None:
    async with world() as made:
        made.catalog.expect("a", asked=True)
        made.catalog.expect("a", asked=False)
        assert made.catalog.model("a").asked


async def test_ready_when_the_start_is_over_and_something_answers() -> None:
    async with world() as made:
        assert not made.catalog.ready
        made.catalog.loaded = True
        assert made.catalog.ready  # nothing is to be served
        made.catalog.expect("a", asked=False)
        assert made.catalog.ready  # mode explicit: nothing was asked for
        made.catalog.expect("b", asked=True)
        assert not made.catalog.ready
        made.opener.failures["bad"] = ModelLoadFailed("broken")
        await made.apply("b", {1: "bad"})
        assert not made.catalog.ready
        await made.apply("a", {1: "good"})
        assert made.catalog.ready  # one bad model does not hold back the others
        made.catalog.loaded = False
        assert not made.catalog.ready


async def test_ready_again_when_all_was_unloaded_by_request() -> None:
    async with world() as made:
        made.catalog.loaded = True
        await made.apply("a", {1: "x"})
        labels = {"model": "a", "version": "1"}
        assert made.registry.get_sample_value("nerve_model_load_seconds", labels) is not None
        await made.manager.unload("a", wait=True)
        assert made.catalog.ready
        assert made.registry.get_sample_value("nerve_model_load_seconds", labels) is None


async def test_listeners_hear_of_every_state() -> None:
    async with world() as made:
        heard: list[State] = []
        made.catalog.on_change(lambda: heard.append(made.catalog.model("a").leading[0]))
        await made.apply("a", {1: "x"})
        with made.catalog.lease("a", None):
            await made.manager.unload("a")
        await made.manager.aclose()
        order = [state for number, state in enumerate(heard) if heard[:number][-1:] != [state]]
        assert order == [LOADING, READY, State.UNLOADING, UNAVAILABLE]


# --- the default that nobody named ---


async def test_the_only_model_stays_the_default_when_others_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A folder that somebody drops into the repository fails no request without a name."""
    async with world() as made:
        await made.apply("m", {1: "first"})
        made.catalog.loaded = True
        made.catalog.tell_change()
        await made.apply("a", {1: "second"})
        assert made.answering() == "first"
        assert "--default-model" in caplog.text
        await made.manager.remove("m")
        assert made.answering() == "second"
        await made.apply("m", {1: "third"})
        assert made.answering() == "second"


async def test_several_models_at_the_start_have_no_default() -> None:
    async with world() as made:
        await made.apply("m", {1: "first"})
        await made.apply("a", {1: "second"})
        made.catalog.loaded = True
        made.catalog.tell_change()
        with pytest.raises(NoDefaultModel):
            made.answering()
        await made.manager.unload("a")
        assert made.answering() == "first"


async def test_a_default_that_was_named_is_no_other() -> None:
    async with world(default_model="z") as made:
        await made.apply("m", {1: "first"})
        made.catalog.loaded = True
        made.catalog.tell_change()
        with pytest.raises(ModelNotFound):
            made.answering()
