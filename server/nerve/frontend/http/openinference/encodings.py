"""Content codings of answers: which one a client wants, and compressing. Pure."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from nerve.frontend.http.body import CODINGS

IDENTITY: Final = "identity"
LEVEL: Final = 1
"""Of zlib: answers are compressed while somebody waits."""
SMALL_BYTES: Final = 1024
"""Less is sent as it is: it fits a packet anyway."""


@lru_cache(maxsize=64)  # a client sends the same with every request
def choose(accepted: str | None) -> str:
    """The coding of an answer: gzip, deflate or identity.

    The first of the highest weight among those three that are named, as Triton has it; `*` and
    others are not looked at, and what cannot be met is answered as it is.
    """
    if not accepted:
        return IDENTITY
    best, found = 0.0, IDENTITY
    for name, weight in _weights(accepted):
        if weight > best and (name in CODINGS or name == IDENTITY):
            best, found = weight, name
    return found


def _weights(accepted: str) -> Iterator[tuple[str, float]]:
    for item in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                weight = _weight(value)
        yield name, weight


def _weight(text: str) -> float:
    """0 where it makes no sense: not acceptable."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if math.isfinite(weight) and weight <= 1 else 0.0


def compress(body: bytes, coding: str) -> bytes:
    """In one of `CODINGS`."""
    return zlib.compress(body, LEVEL, CODINGS[coding])
