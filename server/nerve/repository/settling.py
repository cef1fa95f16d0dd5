"""Which of many things have been quiet for long enough. Pure: no clock, no disk, no loop.

What is seen of a thing is any value that can be compared; for a model, the stamp of its files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

_NEVER = object()  # equal to nothing that is seen
GONE = None
"""What is seen of a thing that is not there any more."""


@dataclass(slots=True)
class _Thing:
    seen: Hashable = GONE
    quiet_since: float = 0.0
    taken: Hashable = GONE

    @property
    def waiting(self) -> bool:
        return self.seen != self.taken


class Settling:
    """Tells the names whose value has stayed the same for `settle_s` and is not the one taken last.

    A name that vanishes changes to GONE, which settles like any other value; one never seen is
    GONE from the start.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._things: dict[str, _Thing] = {}

    def observe(self, seen: Mapping[str, Hashable], now: float) -> list[str]:
        """Note what is there now, all of it; returns the names that have settled, sorted.

        A name is returned by every call until it is taken, or changes again.

        Args:
            seen: every name that is there, with what it looks like.
            now: monotonic seconds.
        """
        for name in seen.keys() | self._things.keys():
            value = seen.get(name, GONE)
            thing = self._things.get(name)
            if thing is None:
                self._things[name] = _Thing(value, now)
            elif thing.seen != value:
                thing.seen, thing.quiet_since = value, now
        self._drop_gone()
        return sorted(
            name
            for name, thing in self._things.items()
            if thing.waiting and self._left_s(thing, now) <= 0
        )

    def taken(self, name: str, value: Hashable) -> None:
        """This value was dealt with; the name is due again when it looks different."""
        self._things.setdefault(name, _Thing()).taken = value
        self._drop_gone()

    def again(self, name: str, at: float) -> None:
        """What was taken last could not be dealt with: it is due once more, `settle_s` after `at`."""
        thing = self._things.get(name)
        if thing is not None:
            thing.taken, thing.quiet_since = _NEVER, max(thing.quiet_since, at)

    def waits(self, name: str) -> bool:
        """Whether what was observed last of this name has not been taken yet."""
        thing = self._things.get(name)
        return thing is not None and thing.waiting

    def due(self, now: float) -> float | None:
        """Seconds until the next `observe` can return a name, 0 if at once; None: nothing waits."""
        waits = [self._left_s(thing, now) for thing in self._things.values() if thing.waiting]
        return max(0.0, min(waits)) if waits else None

    def _left_s(self, thing: _Thing, now: float) -> float:
        return thing.quiet_since + self._settle_s - now

    def _drop_gone(self) -> None:
        """Forget what is neither there nor remembered to have been: names must not pile up."""
        for name in [
            name for name, each in self._things.items() if each.seen is each.taken is GONE
        ]:
            del self._things[name]
