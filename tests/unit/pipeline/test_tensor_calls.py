"""The calls into Python look for room before they hand anything to Lua, whose allocator raises."""

from __future__ import annotations

import numpy as np
import pytest

from nerve.pipeline.tensor_calls import Calls, Meter, Parts, Tensor

LIMIT_BYTES = 1 << 20
FEW_BYTES = 100_000
"""More than each call wants before it starts, and less than the longest text of a Tensor has."""


def meter_with(free_bytes: int) -> Meter:
    """One whose machine takes all but so much."""
    return Meter(LIMIT_BYTES, lambda: LIMIT_BYTES - free_bytes, lambda _: None)


@pytest.mark.parametrize("name", sorted(Calls(meter_with(0)).all()))
def test_no_call_answers_without_room(name: str) -> None:
    meter = meter_with(1000)
    tensor = Tensor(np.ones((2, 2), np.float32), meter)
    arguments = {
        "parts": (),
        "make": (bytes(8), 2),
        "append": (Parts(), tensor),
        "stack": (Parts([tensor]), 1),
    }
    answer = Calls(meter).all()[name](*arguments.get(name, (tensor, 1, 1)))
    assert answer == (None, b"max_memory_bytes")


@pytest.mark.parametrize(("free_bytes", "fits"), [(FEW_BYTES, False), (1 << 19, True)])
def test_a_text_needs_room_of_its_own(free_bytes: int, fits: bool) -> None:
    meter = meter_with(free_bytes)
    tensor = Tensor(np.full((4, 6, 6, 6, 5), 1.2345678e-38, np.float32), meter)
    ok, text, *_ = Calls(meter).all()["tostring"](tensor)
    assert (ok, text == b"max_memory_bytes") == ((True, False) if fits else (None, True))
