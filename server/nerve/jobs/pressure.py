"""When to leave the models alone: requests that are answered at once go first.

Decides, and waits for nothing. Times are monotonic seconds.
"""

from __future__ import annotations

from nerve.jobs.pace import Pace, doubled


class _Growing:
    """A rest that is longer each time, until one was not needed."""

    def __init__(self) -> None:
        self._times, self.until = 0, 0.0

    def again(self, pace: Pace, now: float) -> None:
        if now >= self.until:  # those that were tried together tell the same
            self._times += 1
            self.until = now + doubled(pace.busy_s, self._times, pace.busy_max_s)

    def over(self, now: float) -> None:
        if now >= self.until:
            self._times = 0


class Pressure:
    """A request whose model has no room waits longer each time; and all claims rest, as a claim does
    not choose the model: what would be claimed next is likely to be for the same."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._all = _Growing()
        self._models: dict[str, _Growing] = {}

    def full(self, model: str, now: float) -> float:
        """It had no room. Seconds until its request may be tried again."""
        self._all.again(self._pace, now)
        rest = self._models.setdefault(model, _Growing())
        rest.again(self._pace, now)
        return rest.until - now

    def room(self, model: str, now: float) -> None:
        """It had room."""
        self._all.over(now)
        self._models.pop(model, None)

    def rest_s(self, now: float) -> float:
        """Seconds for which nothing is to be claimed."""
        return max(0.0, self._all.until - now)
