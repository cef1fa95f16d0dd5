"""Frames between the daemon and the process of a transform."""

from __future__ import annotations

import pytest

from nerve.transforming.wire import HEADER, BadFrameError, FrameReader, Kind, frame, text_frame


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_frames_are_cut_wherever_they_are_split(piece: int) -> None:
    reader, found = FrameReader(), []
    stream = (
        text_frame(Kind.LOG, "é" * 40) + frame(Kind.CHECKED, 2) + frame(Kind.SCORES, 0, b"1234")
    )
    for at in range(0, len(stream), piece):
        reader.feed(stream[at : at + piece])
        while (came := reader.next(4096)) is not None:
            found.append((came.kind, came.count, came.text))
    assert found == [(Kind.LOG, 0, "é" * 40), (Kind.CHECKED, 2, ""), (Kind.SCORES, 0, "1234")]


@pytest.mark.parametrize("header", [(99, 0, 0), (int(Kind.SCORES), 0, 101), (0, 0, 2**63)])
def test_what_is_no_frame_is_noticed_by_its_header(header: tuple[int, int, int]) -> None:
    reader = FrameReader()
    reader.feed(HEADER.pack(*header))
    with pytest.raises(BadFrameError):
        reader.next(100)
