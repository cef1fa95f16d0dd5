"""The pure parts of the process that runs a transform; the process itself is in test_transforming."""

from __future__ import annotations

import numpy as np
import pytest

from nerve.transforming.wire import MAX_LINES, MAX_TEXT_BYTES, Shape
from nerve.transforming.worker import Printed, pad, shape_of
from nerve.types import FloatArray


def test_padding() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(5, 4) + 1
    padded, real = pad(rows, np.array([2, 3], np.uint32))
    assert padded.shape == (2, 3, 4)
    np.testing.assert_array_equal(padded[0, :2], rows[:2])
    assert not padded[0, 2].any()
    np.testing.assert_array_equal(padded[real], rows)


def test_a_printing_script_is_cut_short() -> None:
    """So many lines a run; what was left out is told with the next."""
    sent: list[bytes] = []
    printed = Printed(sent.append)
    printed.begin()
    for number in range(MAX_LINES + 7):
        printed(f"line {number}")
    assert len(sent) == MAX_LINES
    assert b"line 0" in sent[0]
    printed.begin()
    printed("é" * MAX_TEXT_BYTES)
    assert b"7 lines left out" in sent[-1]
    assert len(sent[-1]) < MAX_TEXT_BYTES + 100
    for _ in range(100):
        printed.begin()
        printed("again")
    assert len(sent) < 2 * MAX_LINES + 100  # so many a second, too


EVEN = np.full((2, 3, 4), 0.25, np.float32)
ODD = EVEN.copy()
ODD[1, 2] = [0.6, 0.6, -0.2, 0]
LARGE = EVEN.copy()
LARGE[0, 0] = [0.25, 0.25, 0.25, 0.26]


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        (EVEN, Shape.PROBABILITIES),
        (EVEN + 1e-5, Shape.PROBABILITIES),
        (ODD, Shape.SCORES),  # one token is not in [0, 1]
        (LARGE, Shape.SCORES),  # one token has more than 1 in all
        (EVEN - 0.25, Shape.SCORES),
        (np.ones((2, 3), np.float32), Shape.CLASSES),
    ],
)
def test_what_a_dry_run_shows(result: FloatArray, shape: Shape) -> None:
    assert shape_of(result) is shape
