"""Which models to leave alone for a while: requests that are answered at once go first, and no model
holds up requests to another.

Decides, and waits for nothing. Times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from nerve.jobs.pace import Pace, doubled

SHARE: Final = 3
"""A model has at most so many times as many places as are free: three quarters of all, if it is the only
one. Two that are busy have the same, and whatever comes next finds a place."""


class Room(NamedTuple):
    """What may be claimed now: up to `limit` requests, none of them to the models `without`."""

    limit: int
    without: frozenset[str]


def room(held: Mapping[str, int], free: int, resting: Collection[str]) -> Room:
    """How many places may be given away, so that no model gets more than its share. Pure.

    Args:
        held: how many places each model has.
        free: how many nobody has.
        resting: models that get none now.
    """
    without = {*resting, *(model for model, places in held.items() if places >= SHARE * free)}
    # They may all be for the model that has most already; whoever asks again learns whom they were for.
    most = max((places for model, places in held.items() if model not in without), default=0)
    return Room(max(0, math.ceil((SHARE * free - most) / (SHARE + 1))), frozenset(without))


class _Rest(NamedTuple):
    """How many times it had no room, one after the other, and until when nothing is claimed."""

    times: int
    until: float


class Pressure:
    """A model that has no room, or is no model yet, is left alone, for longer each time."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._rests: dict[str, _Rest] = {}

    def full(self, model: str, now: float) -> float:
        """It had no room. Seconds until requests to it may be tried again."""
        rest = self._rests.get(model, _Rest(0, now))
        if now >= rest.until:  # those that were tried together tell the same
            times = rest.times + 1
            wait_s = doubled(self._pace.busy_s, times, self._pace.busy_max_s)
            self._rests[model] = rest = _Rest(times, now + wait_s)
        return rest.until - now

    def room(self, model: str, now: float) -> None:
        """It had room; what was begun before it rested tells nothing."""
        rest = self._rests.get(model)
        if rest is not None and now >= rest.until:
            del self._rests[model]

    def resting(self, now: float) -> frozenset[str]:
        """Models to which nothing is to be claimed; those that nobody asks for now are forgotten."""
        forgotten_at = now - self._pace.busy_max_s
        for model in [each for each, rest in self._rests.items() if rest.until <= forgotten_at]:
            del self._rests[model]
        return frozenset(model for model, rest in self._rests.items() if now < rest.until)

    def rested_at(self, now: float) -> float:
        """When the first of them may be claimed again; infinite without any."""
        ends = (rest.until for rest in self._rests.values() if now < rest.until)
        return min(ends, default=math.inf)
