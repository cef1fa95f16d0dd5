"""How many requests are being answered."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from nerve.frontend.admission import Admission


class InFlight:
    """Counts requests between their head and their answer, and tells when there is none."""

    def __init__(self) -> None:
        self.draining = False
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @property
    def count(self) -> int:
        """Requests that are being answered, probes included."""
        return self._count

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def wait_for_none(self) -> None:
        """Return when no request is in flight."""
        await self._none.wait()


IN_FLIGHT: Final = web.AppKey("in_flight", InFlight)
ADMISSION: Final = web.AppKey("admission", Admission)
