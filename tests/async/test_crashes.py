"""The daemon is killed again and again: nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from crashes import CANCEL_EVERY, EXPIRED_AT_ONCE, Plan, crash


async def test_nothing_that_was_accepted_is_lost(repository: Path, tmp_path: Path) -> None:
    """2,000 requests and three times kill -9: each is delivered at least once, with the right answer
    and signature; what was canceled is not, what has expired says so, and none is left over."""
    asyncio.get_running_loop().set_debug(False)  # it would take half as long again
    store = str(tmp_path / "jobs.db")
    outcome = await crash(Plan(repository, tmp_path, store, requests=2000, kills=3))
    assert outcome.faults == []
    assert outcome.accepted == 2000
    assert outcome.statuses["EXPIRED"] == EXPIRED_AT_ONCE
    assert outcome.statuses["CANCELED"] <= 2000 // CANCEL_EVERY
    assert outcome.statuses.total() == 2000 + EXPIRED_AT_ONCE
    assert outcome.messages >= 2000 - outcome.statuses["CANCELED"]
