"""Runs of the pipeline that may be killed: python bulk_runs.py INPUT [OUTPUT KILL_AT]...

Each is a process of its own, forked from this one, which only imports. The tagger is plain arithmetic
on the text; KILL_AT is the number of the rename or of the sync to the disk before which the process
kills itself, 0 for never. Each position is kept, whatever the time. The statuses go to stdout.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nerve.cli.bulk import feed, output
from nerve.cli.bulk.formats import kind_of_name, shape_of_input, shape_of_output
from nerve.cli.bulk.job import Plan, Wanted, run_part
from nerve.cli.bulk.records import Outcome, Tagged
from nerve.cli.bulk.sources import open_input
from nerve.cli.bulk.window import Flight, Tagging


async def tag(texts: Sequence[str]) -> list[Outcome]:
    """An entity a text."""
    await asyncio.sleep(0)
    return [
        Tagged([{"text": text, "label": "X", "start": 0, "end": len(text), "score": 0.5}])
        for text in texts
    ]


@asynccontextmanager
async def opened(model: str = "m") -> AsyncIterator[Tagging]:
    """The tagger above."""
    yield Tagging(tag, Flight(4, 8), {"the model": model})


def plan(source: Path, target: Path, *, keep_going: bool = False, model: str = "m") -> Plan:
    """From a file to a file."""
    kind = kind_of_name(target)
    assert kind is not None
    wanted = Wanted(
        source, shape_of_input(source, None).kind, shape_of_output(target, kind), "text", "entities",
        keep_going=keep_going, restart=False,
    )  # fmt: skip
    reader = open_input(source, None, text_field="text", carry=wanted.beside is None)
    return Plan(wanted, reader, wanted.encoder(reader), opened(model))


def run_plan(planned: Plan, target: Path, *, restart: bool = False) -> output.Part:
    """Run it to its end."""
    part = output.Part(target, planned.encoder.head(), gzipped=planned.wanted.output.gzipped)
    try:
        part.lock(restart=restart)
        asyncio.run(run_part(planned, part))
    finally:
        part.close()
        planned.reader.close()
    return part


def run_once(source: Path, target: Path, kill_at: int) -> None:
    """See above."""
    output.CHECKPOINT_S = -1.0  # type: ignore[misc]
    feed.CHUNK_RECORDS = 64  # type: ignore[misc]
    output.MEMBER_RECORDS = 50  # type: ignore[misc]
    left = [kill_at]

    def dying(call: Any) -> Any:
        def instead(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return instead

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    run_plan(plan(source, target), target)


def main(source: Path, runs: Sequence[str]) -> None:
    """See above."""
    for target, kill_at in zip(runs[::2], runs[1::2], strict=True):
        process = os.fork()
        if not process:
            run_once(source, Path(target), int(kill_at))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), Path(target).exists(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
