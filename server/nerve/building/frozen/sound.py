"""Whether a library that was stripped can still be loaded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<16x2xHIQQQIHHH")
"""Of a 64-bit ELF file; used: offset of the program headers, their size and number."""
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
"""Type, flags, offset, address, physical address, size in file, size in memory, alignment."""
_LOAD: Final = 1


def is_loadable(path: str) -> bool:
    """Whether each segment of an ELF file lies in it as the loader wants.

    strip(1) moves segments of libraries that patchelf(1) has changed, as in many wheels, to where
    they do not fit their addresses any more.
    """
    with Path(path).open("rb") as file:
        head = file.read(_HEADER.size)
        if not head.startswith(b"\x7fELF\x02\x01") or len(head) < _HEADER.size:
            return False
        _, _, _, start, _, _, _, size, count = _HEADER.unpack(head)
        if size != _SEGMENT.size:
            return False
        file.seek(start)
        table = file.read(size * count)
    if len(table) < size * count:
        return False
    for kind, _, offset, address, _, _, _, alignment in _SEGMENT.iter_unpack(table):
        if kind == _LOAD and alignment > 1 and offset % alignment != address % alignment:
            return False
    return True
