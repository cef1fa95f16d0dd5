"""What the server has in hand, over all protocols, and the limits at which it takes no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nerve.errors import ServerBusy
from nerve.exchange import Access, Exchange, current
from nerve.frontend.guard import Guard

WORK: Final = (Access.PREDICT, Access.ADMIN)
"""What takes a place. What only looks is cheap, and wanted most when there is too much to do."""


class Admission:
    """A guard that lets in no more than fits, and the observer that counts who has left.

    The place and the bytes of a request are given back when its exchange ends, however it ends.
    """

    def __init__(self, guard: Guard, *, max_requests: int, max_bytes: int) -> None:
        """`guard` decides who may ask at all; it is asked after there is a place."""
        self._guard, self._max_requests, self._max_bytes = guard, max_requests, max_bytes
        self._held: dict[Exchange, int] = {}
        self._bytes = 0

    @property
    def requests(self) -> int:
        """Requests that have a place."""
        return len(self._held)

    @property
    def full(self) -> bool:
        """Whether one more would be refused."""
        return len(self._held) >= self._max_requests

    @property
    def held_bytes(self) -> int:
        """Bytes of their bodies that are in memory."""
        return self._bytes

    def admit(self, headers: Mapping[str, str], access: Access, peer: str) -> str | None:
        """See `Guard.admit`; the current exchange gets the place.

        Raises:
            ServerBusy; what the guard raises.
        """
        exchange = current()
        # A stream that waits for what the server may have to say has a session, which is counted.
        if exchange is not None and access in WORK and exchange.method != "GET":
            if self.full:
                raise ServerBusy("requests in flight", self._max_requests)
            self._held[exchange] = 0
        return self._guard.admit(headers, access, peer)

    def check(self, headers: Mapping[str, str], access: Access) -> str | None:
        """See `Guard.check`."""
        return self._guard.check(headers, access)

    def working(self, protocol: str) -> int:
        """Requests of a protocol that have a place."""
        return sum(exchange.protocol == protocol for exchange in self._held)

    def hold(self, size: int) -> None:
        """The current exchange keeps so many bytes more. One that is alone may have any number.

        Raises:
            ServerBusy: they do not fit.
        """
        exchange = current()
        if exchange is None or (held := self._held.get(exchange)) is None:
            return
        if self._bytes + size > self._max_bytes and self._bytes > held:
            raise ServerBusy("bytes of requests in hand", self._max_bytes)
        self._held[exchange] = held + size
        self._bytes += size

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """See `Observer.began`: nothing is taken before the request is admitted."""

    def finished(self, exchange: Exchange) -> None:
        """See `Observer.finished`."""
        self._bytes -= self._held.pop(exchange, 0)
