"""A runtime and a model become one executable file, which is there as a whole or not at all.

Boot loader, manifest and contents (`payload`), the boot loader's archive, footer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from nerve.building.faults import BuildFailed
from nerve.building.payload import Packing, footer
from nerve.building.runtime import Runtime

_CHUNK_BYTES = 1 << 20


def check_output(output: Path) -> None:
    """See that a file can be written there, as far as can be told before.

    Raises:
        BuildFailed: it cannot, and why.
    """
    folder = output.parent
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else f"is not there; make it: mkdir -p {folder}"
        raise BuildFailed(f"{output} cannot be written: the folder {folder} {what}")
    if output.is_dir():
        raise BuildFailed(f"{output} cannot be written: it is a folder; name a file: -o FILE")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BuildFailed(f"{output} cannot be written: no permission to write into {folder}")


def assemble(runtime: Runtime, packing: Packing, output: Path) -> int:
    """Write the file beside its place, and rename it into it. Returns its size in bytes.

    Raises:
        BuildFailed: it cannot be written, or something has changed meanwhile. Then, as when this
            is interrupted, nothing of it is left, and what was in its place stays.
    """
    check_output(output)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{output.name[:100]}.", dir=output.parent)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target:
                with runtime.path.open("rb") as program:
                    start = target.write(program.read(runtime.archive))  # some 70 KB
                    length = packing.write(target)
                    shutil.copyfileobj(program, target, _CHUNK_BYTES)
                target.write(footer(start, length))
                target.flush()
                os.fsync(target.fileno())
                size_bytes = target.tell()
            aside.chmod(0o777 & ~_umask())
            aside.replace(output)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BuildFailed(f"{output} cannot be written: {error.strerror or error}") from error
    return size_bytes


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
