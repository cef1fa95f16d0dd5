"""How long what waits, and how delays grow."""

from __future__ import annotations

from typing import Final, NamedTuple

LONGEST_LOOK_S: Final = 30.0
"""Without a reason to, a store of our own is not asked more often."""


class Pace(NamedTuple):
    """Times that are no settings. In seconds."""

    lease_s: float = 30.0
    """What was claimed is for others after that, unless it is renewed: at a third of it."""
    poll_s: float = 1.0
    """Between two looks into a store that others write to; also for requests that must run alone."""
    counts_s: float = 5.0
    """Between two counts for the metrics."""
    sweep_s: float = 30.0
    """Between two looks for what has been kept for long enough."""
    store_s: float = 0.5
    """After the store failed, twice as long each time up to `store_max_s`."""
    store_max_s: float = 15.0
    busy_s: float = 0.1
    """A model that has no room is left alone so long, twice as long each time up to `busy_max_s`."""
    busy_max_s: float = 5.0
    webhook_s: float = 2.0
    """After a message was not taken, twice as long each time up to `webhook_max_s`."""
    webhook_max_s: float = 60.0
    slow_s: float = 0.5
    """A receiver that takes longer for a message is slow."""
    postponed_max_s: float = 120.0
    """Longest time until a message that was put off for that is looked at again."""
    given_up_s: float = 3600.0
    """After so long a message that was put off for that is not sent any more."""


def doubled(first_s: float, times: int, longest_s: float) -> float:
    """The delay after so many (1 and more) of the same: doubled after each but the first. Pure."""
    return float(min(first_s * 2.0 ** min(max(times - 1, 0), 64), longest_s))
