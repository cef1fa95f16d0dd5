"""Memory that the GPU copies from and to by itself, without a detour by the driver's own buffers."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_PORTABLE: Final = 1
"""cudaHostRegisterPortable: pinned for every device, not only for this thread's."""
_OK: Final = 0


def cuda_runtime(version: str | None) -> Any | None:  # noqa: ANN401  a C library
    """CUDA's runtime library if this process has it loaded (a session on a GPU has).

    Args:
        version: of CUDA that ONNX Runtime was built with, like "13.0"; None or empty for none.
    """
    if not version:
        return None
    name = f"libcudart.so.{version.partition('.')[0]}"
    try:
        return ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return None


def pin(buffer: npt.NDArray[Any], runtime: Any | None) -> bool:  # noqa: ANN401  as above
    """Lock the pages of `buffer` for as long as it lives; False if that cannot be done.

    Without it everything works the same, only slower.
    """
    if runtime is None or not buffer.nbytes:
        return False
    address = ctypes.c_void_p(buffer.ctypes.data)
    register = runtime.cudaHostRegister
    if register(address, ctypes.c_size_t(buffer.nbytes), ctypes.c_uint(_PORTABLE)) != _OK:
        return False
    weakref.finalize(buffer, runtime.cudaHostUnregister, address).atexit = False
    return True


def empty_bytes(size: int) -> npt.NDArray[np.uint8]:
    """A buffer that owns its pages alone, so that pinning it pins nothing else.

    Args:
        size: in bytes.
    """
    page = 4096
    whole = np.empty(-(-size // page) * page + page, dtype=np.uint8)
    offset = -whole.ctypes.data % page
    return whole[offset : offset + -(-size // page) * page]
