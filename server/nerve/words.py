"""What settings and requests may choose from. Imports nothing heavy: every command has the settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Strategy(StrEnum):
    """How word pieces become entities; the names and meanings of `transformers.pipeline("ner")`."""

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    AVERAGE = "average"
    MAX = "max"


class OffsetUnit(StrEnum):
    """What `start` and `end` count."""

    CODEPOINT = "codepoint"
    BYTE = "byte"
    UTF16 = "utf16"


class Side(StrEnum):
    """An end of a text; as a truncation side, the end that is cut off."""

    LEFT = "left"
    RIGHT = "right"


LUA_LIBS: Final = ("table", "string", "math", "coroutine", "utf8")
"""Libraries of Lua that a transform may have; the first three are the default."""
UNSAFE_LUA_LIBS: Final = ("io", "os", "debug", "package")
"""Those that reach out of it: Encoderfile has them as well, but for `debug`."""
