"""Positions in code points, UTF-8 bytes and UTF-16 units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nerve.pipeline.offsets import convert
from nerve.words import OffsetUnit

EDGES = "a\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffffé\u0301😀"
"""Characters at the borders between widths, and some everyday ones."""
_characters = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(EDGES))


def units_before(text: str, position: int, unit: OffsetUnit) -> int:
    """Length of what is before a position, by Python's own encoders."""
    before = text[:position]
    if unit is OffsetUnit.BYTE:
        return len(before.encode("utf-8"))
    if unit is OffsetUnit.UTF16:
        return len(before.encode("utf-16-le")) // 2
    return position


@given(st.lists(_characters, max_size=40).map("".join))
@example(EDGES)
def test_every_position_equals_the_length_of_the_encoded_prefix(text: str) -> None:
    """All positions of a text, its end included, in all three units."""
    positions = np.arange(len(text) + 1)
    for unit in OffsetUnit:
        expected = [units_before(text, position, unit) for position in range(len(text) + 1)]
        assert convert(text, positions, unit).tolist() == expected


@pytest.mark.parametrize("unit", list(OffsetUnit))
@pytest.mark.parametrize("text", ["plain", "é😀"])
def test_shape_and_order_of_positions_are_kept(text: str, unit: OffsetUnit) -> None:
    """Pairs stay pairs, in any order, repeated or not; none stay none."""
    positions = np.array([[2, 0], [1, 1], [0, 2]])
    found = convert(text, positions, unit)
    assert found.shape == (3, 2)
    assert found.dtype == np.int64
    expected = [[units_before(text, each, unit) for each in pair] for pair in positions.tolist()]
    assert found.tolist() == expected
    assert convert(text, np.empty(0, dtype=np.int64), unit).tolist() == []
