"""What the daemon and the process that runs a model's transform say to each other: frames of bytes.

A frame is a header (`HEADER`) and a body. Every frame to the worker is answered by exactly one frame
that is no LOG, in the order in which they were sent; LOGs may come before it. Both ends are one
program on one machine, so numbers are as the machine has them. Nothing here waits or runs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from nerve.types import FloatArray, IntArray

HEADER: Final = struct.Struct("=IIQ")
"""Kind, count, and the bytes of the body."""
MAX_TEXT_BYTES: Final = 4096
"""Longest body that is a text; what is longer is cut."""
MAX_LINES: Final = 20
"""Most LOGs before an answer."""


class Kind(IntEnum):
    """What a frame is; all that have no body say so by their count."""

    START = 1
    """To the worker, first: JSON of `script`, `libs`, `limits` (a list) and `labels`."""
    CHECK = 2
    """To the worker: do the dry run."""
    RUN = 3
    """To the worker: `count` rows; lengths uint32 (rows,), then float32 (tokens of all, labels)."""

    STARTED = 10
    """Count: 1 if the script has a Postprocess, else 0."""
    CHECKED = 11
    """Count: a `Shape`."""
    SCORES = 12
    """float32 (tokens of all rows, labels)."""
    CLASSES = 13
    """int64 (tokens of all rows,), from 0."""
    LOG = 14
    """A line that the script printed."""

    FAILED = 20
    """The script's own error."""
    WRONG = 21
    """Why the result cannot be used."""
    LIMIT = 22
    """The name of the limit that the script ran into."""
    BROKEN = 23
    """Neither: what is wrong with the worker, which ends itself now."""


class Shape(IntEnum):
    """What the dry run gave."""

    SCORES = 0
    PROBABILITIES = 1
    CLASSES = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One that came."""

    kind: Kind
    count: int
    body: bytearray

    @property
    def text(self) -> str:
        """The body, where it is a text."""
        return self.body.decode("utf-8", "replace")


class BadFrameError(Exception):
    """These bytes are no frame, or one that is too long."""


def frame(kind: Kind, count: int = 0, *parts: bytes | FloatArray | IntArray) -> bytes:
    """A whole frame. `parts` of its body are C-contiguous."""
    sizes = [len(part) if isinstance(part, bytes) else part.nbytes for part in parts]
    views = [part if isinstance(part, bytes) else part.data for part in parts]
    return b"".join((HEADER.pack(kind, count, sum(sizes)), *views))


def text_frame(kind: Kind, text: str) -> bytes:
    """A whole frame with a text, cut if need be."""
    return frame(kind, 0, text.encode("utf-8", "replace")[:MAX_TEXT_BYTES])


def run_frame(rows: Sequence[FloatArray]) -> bytes:
    """A RUN of `rows`, each (tokens, labels) float32."""
    lengths = struct.pack(f"={len(rows)}I", *map(len, rows))
    return frame(Kind.RUN, len(rows), lengths, *map(np.ascontiguousarray, rows))


class FrameReader:
    """Cuts a stream of bytes into frames; a body is copied once, as it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Bytes that came."""
        self._buffer += data

    def next(self, max_bytes: int) -> Frame | None:
        """The next frame, None if it is not whole yet.

        Raises:
            BadFrameError: it is of no known kind, or has a body of more than `max_bytes`.
        """
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        kind, count, size = HEADER.unpack_from(buffer)
        if size > max_bytes or kind not in _KINDS:
            raise BadFrameError
        end = HEADER.size + size
        if len(buffer) < end:
            return None
        self._buffer = buffer[end:]  # seldom more than a part of what was read last
        del buffer[end:]
        del buffer[: HEADER.size]
        return Frame(_KINDS[kind], count, buffer)


_KINDS: Final = {int(kind): kind for kind in Kind}
