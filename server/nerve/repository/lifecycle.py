"""States of a model version, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from nerve.errors import NerveError


class State(StrEnum):
    """What a version is; the names are Triton's."""

    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"


class Event(StrEnum):
    """What happens to a version."""

    LOAD = "load"
    LOADED = "loaded"
    FAILED = "failed"
    UNLOAD = "unload"
    DRAINED = "drained"


NEXT: Final[Mapping[tuple[State, Event], State]] = {
    (State.UNAVAILABLE, Event.LOAD): State.LOADING,
    (State.LOADING, Event.LOADED): State.READY,
    (State.LOADING, Event.FAILED): State.UNAVAILABLE,
    (State.READY, Event.LOAD): State.READY,  # a reload goes on beside the copy that serves,
    (State.READY, Event.LOADED): State.READY,  # takes its place,
    (State.READY, Event.FAILED): State.READY,  # or leaves it there
    (State.READY, Event.UNLOAD): State.UNLOADING,
    (State.UNLOADING, Event.LOAD): State.LOADING,  # wanted again before its last user has gone
    (State.UNLOADING, Event.DRAINED): State.UNAVAILABLE,
}


class IllegalTransition(NerveError):
    """An event that cannot happen in this state: a fault in this program."""

    reason = "illegal_transition"

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(state, event)
        self.state, self.event = state, event

    def __str__(self) -> str:
        return f"event {self.event} in state {self.state}"


def advance(state: State, event: Event) -> State:
    """The state after an event.

    Raises:
        IllegalTransition: the pair is not in the table.
    """
    try:
        return NEXT[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
