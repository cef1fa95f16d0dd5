"""Positions in a text from code points to UTF-8 bytes or UTF-16 units. Pure."""

from __future__ import annotations

import numpy as np

from nerve.types import IntArray
from nerve.words import OffsetUnit


def convert(text: str, positions: IntArray, unit: OffsetUnit) -> IntArray:
    """Positions in another unit.

    Args:
        text: what the positions point into.
        positions: any shape, int64, code points, each in [0, len(text)].
        unit: what the result counts.
    Returns:
        The same shape.
    """
    if unit is OffsetUnit.CODEPOINT or text.isascii():
        return positions
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    width = np.ones(len(points), dtype=np.int64)
    width += points >= 0x10000
    if unit is OffsetUnit.BYTE:
        width += points >= 0x80
        width += points >= 0x800
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(width)])
    return np.asarray(before[positions], dtype=np.int64)
