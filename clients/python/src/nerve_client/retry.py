"""When to try again: decided here from numbers alone; waiting is the clients' business. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nerve_client import checks
from nerve_client.errors import DeadlineExceeded, Unavailable


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential back-off with full jitter, on errors that are `Unavailable`, and no others.

    Before the nth try the pause is random from 0 to `first_s` x `factor`^(n-2), at most
    `longest_s`. Where the server says after how long to come back, that comes on top, so that
    callers who were refused together do not come back together; if it is more than
    `longest_retry_after_s`, or than the time left, the error is raised at once.
    """

    attempts: int = 4
    first_s: float = 0.1
    factor: float = 2.0
    longest_s: float = 5.0
    longest_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError, TypeError: a field has a wrong value."""
        checks.whole("attempts", self.attempts, 1)
        for name in ("first_s", "factor", "longest_s", "longest_retry_after_s"):
            checks.number(name, getattr(self, name), 0)

    def pause_s(self, failed: int, retry_after_s: float | None, *, draw: float) -> float | None:
        """Seconds to wait after the `failed`th try (from 1), or None to give up.

        Args:
            failed: tries so far.
            retry_after_s: the server's advice.
            draw: random, 0 to 1.
        """
        advice = retry_after_s or 0.0
        if failed >= self.attempts or advice > self.longest_retry_after_s:
            return None
        doublings = min(failed - 1, 64)  # a float has an end
        return advice + draw * min(self.longest_s, self.first_s * self.factor**doublings)


NO_RETRY = Retry(attempts=1)


class Tries:
    """The tries of one request, and the time that is left for them."""

    def __init__(
        self,
        policy: Retry,
        *,
        deadline: float,
        random: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline` is in seconds of `clock`; `random` gives numbers from 0 to 1."""
        self._policy, self._deadline, self._random = policy, deadline, random
        self._clock, self._failed = clock, 0

    def left_s(self) -> float:
        """Seconds for the next try.

        Raises:
            DeadlineExceeded: none are left.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise DeadlineExceeded("the time of the call was over before it could be sent")
        return left

    def pause_s(self, error: Unavailable) -> float:
        """Seconds to wait after a try that failed.

        Raises:
            the error itself where trying again is not worth it.
        """
        self._failed += 1
        pause = self._policy.pause_s(self._failed, error.retry_after_s, draw=self._random())
        if pause is None or self._clock() + pause >= self._deadline:
            raise error
        return pause
