"""Mutated bodies and messages against the real daemon; `benchmarks/fuzzing.py` sends 20,000 of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from fuzz import aftermath
from fuzz.serving import fuzzed

SHARE = 500
"""Cases of the 20,000 that run here."""


def test_mutated_bodies_leave_no_trace(tmp_path: Path) -> None:
    """Each is answered in time, none by a fault of the server, which afterwards is as before."""

    async def campaign() -> aftermath.Report:
        async with fuzzed(tmp_path) as daemon:
            return await aftermath.run(daemon, cases=SHARE)

    # Not on the test's own loop: asyncio's debug mode makes clients four times as slow.
    with asyncio.Runner(debug=False, loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(campaign())
    assert not report.problems, "\n".join(report.problems[:10])
    assert report.outcome.count == SHARE
