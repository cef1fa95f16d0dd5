"""States of a model version: every pair of state and event."""

from __future__ import annotations

import itertools

import pytest

from nerve.repository.lifecycle import NEXT, Event, IllegalTransition, State, advance

LEGAL = {
    ("UNAVAILABLE", "load"): "LOADING",
    ("LOADING", "loaded"): "READY",
    ("LOADING", "failed"): "UNAVAILABLE",
    ("READY", "load"): "READY",
    ("READY", "loaded"): "READY",
    ("READY", "failed"): "READY",
    ("READY", "unload"): "UNLOADING",
    ("UNLOADING", "load"): "LOADING",
    ("UNLOADING", "drained"): "UNAVAILABLE",
}
ILLEGAL = [pair for pair in itertools.product(State, Event) if pair not in NEXT]


def test_the_table_is_the_one_above() -> None:
    assert {pair: NEXT[pair].value for pair in NEXT} == LEGAL
    assert len(ILLEGAL) == len(State) * len(Event) - len(LEGAL)


@pytest.mark.parametrize(("pair", "after"), LEGAL.items())
def test_a_legal_event(pair: tuple[str, str], after: str) -> None:
    assert advance(State(pair[0]), Event(pair[1])) is State(after)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_an_illegal_event(state: State, event: Event) -> None:
    """The error carries both, and says both."""
    with pytest.raises(IllegalTransition) as caught:
        advance(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)
    assert str(caught.value) == f"event {event} in state {state}"


def test_every_state_can_be_reached_and_left() -> None:
    assert {state for state, _ in NEXT} == set(State)
    assert set(NEXT.values()) == set(State)
    assert {event for _, event in NEXT} == set(Event)


@pytest.mark.parametrize("event", sorted(set(Event) - {Event.UNLOAD}))
def test_only_unloading_ends_readiness(event: Event) -> None:
    """A reload, whatever becomes of it, never does."""
    if (State.READY, event) in NEXT:
        assert advance(State.READY, event) is State.READY
