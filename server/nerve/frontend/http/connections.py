"""All connections of a server: how many there may be, and who gives way to whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from nerve.errors import ServerBusy
from nerve.frontend.http.connection import RESERVE_S, Connection, Times
from nerve.frontend.http.dialect import error_headers
from nerve.frontend.http.plain_answers import plain_answer
from nerve.frontend.http.quick_refusals import QuickRefusals

RESERVE: Final = 64
"""Connections over the limit that are looked at: probes on them are answered, all else is refused."""
EVICT_S: Final = 1.0
"""How long a connection must have been idle to make room for another."""
ROUND: Final = 500
"""Connections that are looked after in one turn of the event loop."""


class Connections:
    """All connections of a server, and their limits."""

    def __init__(
        self,
        inner: Callable[[], asyncio.Protocol],
        *,
        limit: int,
        times: Times,
        max_header_bytes: int,
        quick: QuickRefusals,
    ) -> None:
        self._new_inner, self.limit, self.times = inner, limit, times
        self.max_header_bytes, self.quick = max_header_bytes, quick
        self.idle: dict[Connection, None] = {}
        """Those without a request, longest first."""
        self._every: set[Connection] = set()
        self._extra: dict[Connection, None] = {}
        self._lingering: set[Connection] = set()
        fault = ServerBusy("connections", limit)
        self.refusal = plain_answer(
            "503 Service Unavailable", str(fault), fault.reason, error_headers(fault)
        )

    @property
    def count(self) -> int:
        """Connections that are open, those that are being refused left out."""
        return len(self._every) + len(self._extra)

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self._new_inner(), self)

    def unsettled(self, *, silent: bool) -> bool:
        """Whether a client is about to ask, or has an answer to read; with `silent` also those count
        that have connected and not said anything."""
        return any(
            each.started
            or (silent and not each.used)
            or (each.transport is not None and each.transport.get_write_buffer_size())
            for each in self.every()
        )

    def every(self) -> Iterable[Connection]:
        """All that are looked at."""
        return [*self._every, *self._extra]

    def hang_up(self) -> None:
        """End all of them, whatever they wait for."""
        for connection in self.every():
            connection.hang_up()

    def take(self, new: Connection) -> bool:
        """Find a place for a connection. False: there is none, not even to say so in its dialect."""
        if len(self._every) >= self.limit:
            self._evict(new.since)
        if len(self._every) < self.limit:
            self._every.add(new)
            self.idle[new] = None
            return True
        if len(self._extra) >= RESERVE and not self._give_up():
            return False
        new.extra = True
        self._extra[new] = None
        return True

    def release(self, gone: Connection) -> None:
        """A connection has ended, or is about to."""
        self.idle.pop(gone, None)
        self._every.discard(gone)
        self._extra.pop(gone, None)
        self._lingering.discard(gone)

    def lingers(self, refused: Connection) -> bool:
        """Whether a connection may be kept for a while after it was refused."""
        if len(self._lingering) >= RESERVE:
            return False
        self._lingering.add(refused)
        return True

    def _give_up(self) -> bool:
        """Refuse the one over the limit that has not asked for longest. Whether there is one."""
        silent = next((each for each in self._extra if not (each.pending or each.request)), None)
        if silent is None:
            return False
        self.release(silent)
        silent.refuse(self.refusal)
        return True

    def _evict(self, now: float) -> None:
        """Close the connection that has been idle for longest."""
        victim = next(iter(self.idle), None)
        if victim is None or now - victim.since < EVICT_S or victim.pending:
            return
        self.release(victim)
        victim.hang_up()

    async def watch(self) -> None:
        """Close what is too slow, until cancelled."""
        pause_s = min(1.0, min(*self.times, RESERVE_S) / 4)
        while True:
            await asyncio.sleep(pause_s)
            every = list(self.every())
            for start in range(0, len(every), ROUND):
                now = time.monotonic()
                for connection in every[start : start + ROUND]:
                    connection.check(now, self.times)
                await asyncio.sleep(0)
