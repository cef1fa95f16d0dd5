"""What the daemon makes of what a transform's process says; real processes are in test_transforming."""

from __future__ import annotations

import asyncio

import pytest

from nerve.transforming.process import NONSENSE, Call, TransformProcess
from nerve.transforming.wire import MAX_LINES, Frame, Kind, frame, text_frame


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"no frame at all, but long enough", NONSENSE),
        (frame(Kind.SCORES, 0, bytes(5000)), NONSENSE),  # more than was asked for
        (text_frame(Kind.LOG, "line") * (MAX_LINES + 1), NONSENSE),
        (frame(Kind.STARTED, 1) * 2, NONSENSE),  # there was one question
        (text_frame(Kind.BROKEN, "MemoryError: "), "MemoryError: "),
    ],
)
async def test_a_process_that_cannot_be_trusted_is_given_up(said: bytes, fault: str) -> None:
    lines: list[str] = []
    process = TransformProcess(on_answer=lambda *_: None, on_line=lines.append)
    answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
    call = Call(frame(Kind.CHECK), 8, 1.0, answer)
    process.send(call)
    process.data_received(said)
    assert process.killed_for == fault
    assert process.blamed in {call, None}
    assert len(lines) <= MAX_LINES
    assert await process.end() == 0  # none was ever started
