"""Servers of async inference that are killed again and again while they are kept busy.

    python benchmarks/async_crashes.py [--requests 20000] [--kills 20] [--minutes 10]
        [--store postgresql://user:password@host:port/database --servers 2]

What tests/async/test_crashes.py does, for longer, and with several servers on one PostgreSQL. Exit
code 1 if a request was lost, answered wrongly, delivered after it was canceled, or is left over. The
database is used as it is: name an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from crashes import Outcome, Plan, crash  # noqa: E402  it is not installed

MOST_FAULTS: Final = 20


def report(outcome: Outcome) -> None:
    """Print what came of it."""
    ends = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items()))
    print(f"{outcome.accepted} accepted in {outcome.seconds:.0f} s: {ends}")
    print(f"{outcome.messages} messages, {outcome.twice} of them for the second time or more")
    for fault in outcome.faults[:MOST_FAULTS]:
        print(fault)
    print(f"{len(outcome.faults)} faults")


async def run(options: argparse.Namespace) -> Outcome:
    """Carry it out in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(TESTS / "models" / "bert", folder / "repository" / "bert")
        plan = Plan(
            folder / "repository",
            folder,
            options.store or str(folder / "jobs.db"),
            requests=options.requests,
            kills=options.kills,
            servers=options.servers,
        )
        async with asyncio.timeout(60 * options.minutes):
            return await crash(plan)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--store", default="", help="by default a file")
    parser.add_argument("--servers", type=int, default=1)
    options = parser.parse_args()
    if options.servers > 1 and "://" not in options.store:
        parser.error("several servers want --store postgresql://…")
    outcome = asyncio.run(run(options))
    report(outcome)
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
