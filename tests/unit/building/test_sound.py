"""Which stripped libraries are taken."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from nerve.building.frozen.sound import is_loadable

LIBRARY = Path(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]


def test_a_library_that_is_loaded_is_loadable() -> None:
    assert is_loadable(str(LIBRARY))


def test_one_whose_segments_do_not_fit_is_not(tmp_path: Path) -> None:
    """As strip(1) leaves those that patchelf(1) has changed."""
    content = bytearray(LIBRARY.read_bytes())
    start, size, count = (
        *struct.unpack_from("<Q", content, 32),
        *struct.unpack_from("<HH", content, 54),
    )
    loads = [at for at in range(start, start + size * count, size) if content[at] == 1]
    (offset,) = struct.unpack_from("<Q", content, loads[-1] + 8)
    struct.pack_into("<Q", content, loads[-1] + 8, offset + 512)
    (tmp_path / "x.so").write_bytes(content)
    assert not is_loadable(str(tmp_path / "x.so"))


@pytest.mark.parametrize("length", [0, 3, 20, 63, 70])
def test_nor_is_one_that_is_cut_short(length: int, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(LIBRARY.read_bytes()[:length])
    assert not is_loadable(str(tmp_path / "x.so"))


def test_nor_what_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_text("GROUP ( libc.so.6 )" * 20)
    assert not is_loadable(str(tmp_path / "x.so"))
