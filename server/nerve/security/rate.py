"""How often a key may ask: a bucket of tokens. Pure; time is an argument."""

from __future__ import annotations


class Bucket:
    """Holds up to `capacity` tokens and gets `rate` new ones a second; a request takes one."""

    def __init__(self, rate: float, capacity: int, now: float) -> None:
        """It is full; `now` is monotonic seconds."""
        self.rate, self.capacity = rate, capacity
        self._tokens, self._since = float(capacity), now

    def take(self, now: float) -> float:
        """Take a token; 0, or the seconds until there is one."""
        passed = max(0.0, now - self._since)
        self._tokens = min(float(self.capacity), self._tokens + passed * self.rate)
        self._since = max(now, self._since)
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate
        self._tokens -= 1
        return 0.0
