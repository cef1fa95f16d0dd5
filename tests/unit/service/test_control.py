"""What is told of models, and who may load and unload them."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlled import controlled
from model_folders import write_model
from nerve.errors import (
    LoadFailed,
    ModelControlDisabled,
    ModelLoadFailed,
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
)
from nerve.repository.lifecycle import State
from nerve.repository.records import IndexRow
from nerve.service.control import (
    Cost,
    Limits,
    ModelSummary,
    Statistics,
    VersionStatus,
)
from nerve.words import OffsetUnit

READY, UNAVAILABLE = State.READY, State.UNAVAILABLE


async def test_everything_about_a_model(tmp_path: Path) -> None:
    """Labels and limits are those of the version that answers."""
    write_model(tmp_path / "a", "version_policy: all", v1="x", v2="bad")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken, load_model=["*"]) as made:
        status = made.control.model("a")
        assert (status.name, status.task, status.state) == ("a", "token-classification", READY)
        assert (status.reason, status.default) == ("version 2: broken", True)
        assert not status.config_override
        limits = Limits(8, None, 1, 8, 1)
        assert (status.labels, status.limits) == (("O", "B-PER"), limits)
        assert status.versions == (
            VersionStatus(
                "1",
                READY,
                "",
                "cpu",
                ("O", "B-PER"),
                limits,
                Statistics(1, 2, 6, 8, 0, 2.0, 0.25),
                Cost(0.001234, 0.0, 0.0, 0.0),
            ),
            VersionStatus("2", UNAVAILABLE, "broken"),
        )
        with pytest.raises(ModelNotFound):
            made.control.model("b")


async def test_the_list_of_models(tmp_path: Path) -> None:
    write_model(tmp_path / "a", v1="x")
    write_model(tmp_path / "b", v2="y")
    async with controlled(tmp_path, load_model=["b"]) as made:
        a, b = made.control.models()
        assert b == ModelSummary("b", READY, "", ("2",), default=True)
        assert (a.name, a.state, a.versions, a.default) == ("a", UNAVAILABLE, (), False)
        assert "not loaded" in a.reason
        assert made.control.states() == {"a": "UNAVAILABLE", "b": "READY"}


async def test_the_configured_default_is_told(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, v1=name)
    async with controlled(tmp_path, load_model=["*"]) as made:
        assert [each.default for each in made.control.models()] == [False, False]
    async with controlled(tmp_path, load_model=["*"], default_model="a") as made:
        assert [each.default for each in made.control.models()] == [True, False]


async def test_the_index(tmp_path: Path) -> None:
    """As it is now, where nobody looks by itself; all of it, or what is READY."""
    write_model(tmp_path / "a", v1="x")
    async with controlled(tmp_path, load_model=["a"]) as made:
        write_model(tmp_path / "b", v1="y")
        (one, other) = await made.control.index()
        assert one == IndexRow("a", 1, READY, "")
        assert (other.name, other.version, other.state) == ("b", 0, UNAVAILABLE)
        assert await made.control.index(ready_only=True) == [one]


async def test_load_and_unload(tmp_path: Path) -> None:
    """With a config in place of the file's, which is told."""
    write_model(tmp_path / "a", v1="x")
    async with controlled(tmp_path) as made:
        await made.control.load("a", config={"max_batch_size": 2})
        assert made.model("x").config.max_batch_size == 2
        assert made.control.model("a").config_override
        await made.control.load("a")
        assert not made.control.model("a").config_override
        await made.control.unload("a", wait=True)
        assert made.control.model("a").state is UNAVAILABLE
        assert made.control.model("a").labels is None
        for action in (made.control.load, made.control.unload):
            with pytest.raises(ModelNotFound):
                await action("b")


@pytest.mark.parametrize("mode", ["watch", "poll", "none"])
async def test_requests_are_refused_unless_allowed(tmp_path: Path, mode: str) -> None:
    """Nothing changes; the error says which mode it is."""
    write_model(tmp_path / "a", v1="x")
    async with controlled(tmp_path, model_control_mode=mode) as made:
        for action in (made.control.load, made.control.unload):
            for name in ("a", "b"):
                with pytest.raises(ModelControlDisabled, match=mode):
                    await action(name)
        assert made.answering("a") == "x"
    async with controlled(tmp_path, model_control_mode=mode, allow_model_control=True) as made:
        await made.control.unload("a")
        await made.control.load("a")
        assert made.answering("a") == "x"


async def test_ready_until_it_drains(tmp_path: Path) -> None:
    write_model(tmp_path / "a", v1="x")
    async with controlled(tmp_path, load_model=["*"]) as made:
        assert made.control.ready
        made.control.draining = True
        assert not made.control.ready


async def test_a_served_version_has_what_it_was_loaded_with(tmp_path: Path) -> None:
    """The highest that answers, or the one that is named; a reload that failed changes nothing."""
    write_model(tmp_path / "a", "version_policy: all\nmax_batch_size: 4", v1="x", v2="y")
    async with controlled(tmp_path, load_model=["*"], offset_unit="utf16") as made:
        served = made.control.served("a", None)
        assert (served.info.version, served.ready) == (2, ("1", "2"))
        assert served.config.max_batch_size == 4
        assert served.version_policy.all is not None
        assert served.offset_unit is OffsetUnit.UTF16
        assert made.control.served("a", "1").info.version == 1
        made.opener.failures["y"] = ModelLoadFailed("broken")
        write_model(tmp_path / "a", "version_policy: all\nmax_batch_size: 9\noffset_unit: byte")
        with pytest.raises(LoadFailed):
            await made.control.load("a")
        assert made.control.served("a", "2").config.max_batch_size == 4
        assert made.control.served("a", "1").config.max_batch_size == 9
        assert made.control.served("a", "1").offset_unit is OffsetUnit.BYTE
        assert made.control.knows("a")
        assert not made.control.knows("b")


async def test_a_version_that_is_not_served_says_why(tmp_path: Path) -> None:
    """As a request to it would."""
    write_model(tmp_path / "a", v1="bad")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken, load_model=["*"]) as made:
        for version in (None, "1"):
            with pytest.raises(ModelNotReady, match="broken"):
                made.control.served("a", version)
        with pytest.raises(VersionNotFound):
            made.control.served("a", "2")
        with pytest.raises(ModelNotFound):
            made.control.served("b", None)


async def test_routing_does_not_shuffle_what_is_described(tmp_path: Path) -> None:
    """Requests go to version 1 alone, yet the same version is described every time; no shadow."""
    config = "routing: {weights: {1: 1, 2: 0}}\nshadow: {version: 3}"
    write_model(tmp_path / "a", config, v1="x", v2="y", v3="z")
    async with controlled(tmp_path, load_model=["*"]) as made:
        assert made.answering("a") == "x"
        assert made.control.served("a", None).info.version == 2
