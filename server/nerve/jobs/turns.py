"""Whose message is sent next: no receiver that is slow, or hangs, holds up those to others.

Decides, and waits for nothing. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from nerve.jobs.pace import Pace
from nerve.jobs.records import Delivery

SHARE: Final = 4
"""A receiver has this part of the connections; all slow ones together have half."""
_WEIGHT: Final = 0.3
"""Of the newest, in what a receiver takes."""


class Turn(Enum):
    """What to do with a message."""

    SEND = "send"
    WAIT = "wait"
    POSTPONE = "postpone"


@dataclass(slots=True)
class _Receiver:
    began: dict[str, float] = field(default_factory=dict)
    """When messages that are on their way were sent, the oldest first."""
    waiting: deque[Delivery] = field(default_factory=deque)
    took_s: float = 0.0
    """What it takes for a message, lately."""
    turn_at: float = 0.0
    """When the next message that is put off could be sent."""

    def takes_s(self, now: float) -> float:
        oldest = next(iter(self.began.values()), now)
        return max(self.took_s, now - oldest)


class Turns:
    """The receivers, by scheme, host and port."""

    def __init__(self, connections: int, pace: Pace) -> None:
        self._slow_s, self._longest_s = pace.slow_s, pace.postponed_max_s
        self._connections = connections
        self._each = max(1, connections // SHARE)
        self._receivers: dict[str, _Receiver] = {}

    def turn(self, place: str, now: float) -> Turn:
        """Of a message to that receiver."""
        receiver = self._receivers.setdefault(place, _Receiver())
        slow = receiver.takes_s(now) > self._slow_s
        if len(receiver.began) < self._each and not (slow and self._slow_ones_are_many(now)):
            return Turn.SEND
        return Turn.POSTPONE if slow else Turn.WAIT

    def began(self, place: str, request_id: str, now: float) -> None:
        """The message of this request is being sent."""
        self._receivers.setdefault(place, _Receiver()).began[request_id] = now

    def ended(self, place: str, request_id: str, now: float) -> None:
        """It was, or failed."""
        receiver = self._receivers[place]
        took_s = now - receiver.began.pop(request_id)
        receiver.took_s += _WEIGHT * (took_s - receiver.took_s)
        if (
            took_s <= self._slow_s
        ):  # it recovers at once, as the others that were put off wait for it
            receiver.took_s = min(receiver.took_s, took_s)
            receiver.turn_at = now

    def wait(self, place: str, delivery: Delivery) -> None:
        """Keep it until there is room."""
        self._receivers.setdefault(place, _Receiver()).waiting.append(delivery)

    def next_waiting(self, now: float) -> tuple[Turn, Delivery] | None:
        """One that was kept and need not wait any more, and what to do with it."""
        for place, receiver in self._receivers.items():
            if receiver.waiting and (turn := self.turn(place, now)) is not Turn.WAIT:
                self._receivers[place] = self._receivers.pop(place)  # the others are before it now
                return turn, receiver.waiting.popleft()
        return None

    def postponed_s(self, place: str, now: float) -> float:
        """Seconds until a message that is put off now may have its turn."""
        receiver = self._receivers.setdefault(place, _Receiver())
        receiver.turn_at = max(receiver.turn_at, now) + receiver.takes_s(now) / self._each
        receiver.turn_at = min(receiver.turn_at, now + self._longest_s)
        return receiver.turn_at - now

    def forget_idle(self, now: float) -> None:
        """Drop receivers of whom there is nothing to know."""
        idle = [
            place
            for place, each in self._receivers.items()
            if not each.began and not each.waiting and each.turn_at <= now
        ]
        for place in idle:
            del self._receivers[place]

    def _slow_ones_are_many(self, now: float) -> bool:
        slow = sum(
            len(each.began) for each in self._receivers.values() if each.takes_s(now) > self._slow_s
        )
        return slow >= max(1, self._connections // 2)
