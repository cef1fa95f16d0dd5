"""Priorities as callers write them."""

from __future__ import annotations

import pytest

from nerve.errors import InvalidField
from nerve.frontend.priority import LOWEST, parse_priority


def test_whole_numbers_from_1_to_10() -> None:
    """And None where nothing is said."""
    given = [parse_priority(str(number), place="header") for number in range(1, LOWEST + 1)]
    assert given == list(range(1, 11))
    assert parse_priority(None, place="header") is None


@pytest.mark.parametrize(
    "text",
    ["", "0", "11", "-1", "+1", "01", "1.0", "5.5", "1e0", " 1", "high", "٣", b"1", "9" * 99],
)
def test_anything_else_is_refused(text: str | bytes) -> None:
    """By the name of what carries it, and without all of what was sent."""
    with pytest.raises(InvalidField) as caught:
        parse_priority(text, place="metadata")
    assert caught.value.field == "metadata x-nerve-priority"
    assert "1 to 10" in str(caught.value)
    assert len(str(caught.value)) < 150
