"""What is told of a model: its leading state, its reason, whether it is stale; the back-off."""

from __future__ import annotations

import asyncio

import pytest

from fake_models import FakeModel, everybody_had_a_turn, wanted
from nerve.repository.lifecycle import Event, State
from nerve.repository.records import (
    NOT_LOADED,
    RETRY_FIRST_S,
    RETRY_LONGEST_S,
    Copy,
    Model,
    Version,
    backoff_s,
)
from nerve.repository.wanted import Wanted

READY, UNAVAILABLE, LOADING, UNLOADING = (
    State.READY,
    State.UNAVAILABLE,
    State.LOADING,
    State.UNLOADING,
)


def model(*versions: tuple[State, str], reason: str = "", asked: bool = True) -> Model:
    """A model that was tried once, with versions from 1 on."""
    made = Model("ner", Wanted("ner"), reason=reason, asked=asked, tried=True)
    for number, (state, why) in enumerate(versions, 1):
        made.versions[number] = Version(number, state, why)
    return made


@pytest.mark.parametrize(
    ("made", "leading"),
    [
        pytest.param(model((READY, "")), (READY, ""), id="one that answers"),
        pytest.param(
            model((READY, ""), (UNAVAILABLE, "broken")),
            (READY, "version 2: broken"),
            id="READY before the others, with what is wrong beside it",
        ),
        pytest.param(
            model((READY, "broken reload")), (READY, "version 1: broken reload"), id="reload failed"
        ),
        pytest.param(
            model((READY, "old"), (READY, "x"), reason="config.yaml: no"),
            (READY, "config.yaml: no; version 2: x; version 1: old"),
            id="everything that is wrong, highest version first",
        ),
        pytest.param(
            model((UNAVAILABLE, "unloaded"), (READY, "")), (READY, ""), id="unloaded is no fault"
        ),
        pytest.param(model((READY, ""), (LOADING, "")), (READY, ""), id="a load beside it"),
        pytest.param(
            model((LOADING, ""), (UNAVAILABLE, "broken")), (LOADING, ""), id="LOADING comes second"
        ),
        pytest.param(
            model((UNAVAILABLE, "older"), (UNAVAILABLE, "newer")),
            (UNAVAILABLE, "newer"),
            id="then the highest",
        ),
        pytest.param(model((UNLOADING, "")), (UNLOADING, ""), id="on its way out"),
        pytest.param(
            model((UNAVAILABLE, "broken"), reason="config.yaml: no"),
            (UNAVAILABLE, "config.yaml: no"),
            id="the whole model before its versions",
        ),
        pytest.param(model(), (UNAVAILABLE, ""), id="no version at all"),
    ],
)
def test_leading(made: Model, leading: tuple[State, str]) -> None:
    assert made.leading == leading


def test_leading_before_the_first_try() -> None:
    """LOADING if it is going to be loaded; else told that somebody has to ask."""
    assert Model("ner", Wanted("ner"), asked=True).leading == (LOADING, "")
    assert Model("ner", Wanted("ner")).leading == (UNAVAILABLE, NOT_LOADED)


@pytest.mark.parametrize(
    ("made", "stale"),
    [
        (model((READY, "")), False),
        (model((READY, "broken reload")), True),
        (model((READY, ""), (UNAVAILABLE, "broken")), True),
        (model((UNAVAILABLE, "broken")), True),
        (model((READY, ""), reason="config.yaml: no"), True),
        (model((READY, ""), (UNAVAILABLE, "unloaded")), False),
        (model((UNAVAILABLE, "broken"), asked=False), False),
    ],
)
def test_stale(made: Model, stale: bool) -> None:
    """Something should be served that is not; nothing that was not asked for is."""
    assert made.stale is stale


def test_ready_and_shadow() -> None:
    made = model((READY, ""), (LOADING, ""), (READY, ""))
    assert made.ready() == [1, 3]
    assert made.shadow is None
    made.serving = wanted("ner", {}, shadow={"version": 3}).config
    assert made.shadow == 3


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [backoff_s(attempts) for attempts in (1, 2, 3)] == [
        RETRY_FIRST_S,
        2 * RETRY_FIRST_S,
        4 * RETRY_FIRST_S,
    ]
    assert backoff_s(10) == backoff_s(100_000) == RETRY_LONGEST_S


def test_advancing_a_version_sets_its_reason() -> None:
    """Each event brings its own; none means that there is nothing to tell."""
    row = Version(1)
    row.advance(Event.LOAD)
    row.advance(Event.FAILED, "broken")
    assert (row.state, row.reason, row.served) == (UNAVAILABLE, "broken", None)
    row.advance(Event.LOAD)
    assert (row.state, row.reason) == (LOADING, "")


async def test_a_copy_is_idle_when_its_last_user_has_gone() -> None:
    copy = Copy(FakeModel("ner", 1), "x")
    await copy.wait_idle()  # nobody had it
    copy.leases += 2
    waiting = asyncio.create_task(copy.wait_idle())
    await everybody_had_a_turn()
    copy.give_back()
    await everybody_had_a_turn()
    assert not waiting.done()
    copy.give_back()
    await waiting
