"""The priority of a request, which every protocol writes in the same way."""

from __future__ import annotations

from typing import Final

from nerve.errors import InvalidField

PRIORITY_KEY: Final = "x-nerve-priority"
"""Name of the HTTP header, and of the key in gRPC's metadata."""
LOWEST: Final = 10
_PRIORITIES: Final = {str(number): number for number in range(1, LOWEST + 1)}


def parse_priority(text: str | bytes | None, *, place: str) -> int | None:
    """1 (first) to 10, or None where nothing is said; `place` is what carries it, for the error.

    Raises:
        InvalidField: anything else.
    """
    if text is None:
        return None
    number = _PRIORITIES.get(text) if isinstance(text, str) else None
    if number is None:
        fault = f"expected a whole number from 1 to {LOWEST}, got {text!r:.40}"
        raise InvalidField(f"{place} {PRIORITY_KEY}", fault)
    return number
