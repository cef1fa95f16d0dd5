"""A runtime and a model become one executable file, which is there as a whole or not at all.

Boot loader, manifest and contents (`payload`), the boot loader's archive, footer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from nerve.building.faults import BuildFailed
from nerve.building.payload import Packing, footer
from nerve.building.runtime import Runtime

_CHUNK_BYTES = 1 << 20


def check_output(output: Path, inputs: Iterable[Path] = ()) -> None:
    """See that a file can be written there, as far as can be told before.

    Args:
        output: the file.
        inputs: files that must not be lost.
    Raises:
        BuildFailed: it cannot, and why.
    """
    folder = output.parent
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else f"is not there; make it: mkdir -p {folder}"
        raise BuildFailed(f"{output} cannot be written: the folder {folder} {what}")
    if output.is_dir():
        raise BuildFailed(f"{output} cannot be written: it is a folder; name a file: -o FILE")
    for each in inputs:
        if _is_same(output, each):
            raise BuildFailed(
                f"{output} cannot be written: it is {each}, which is read for this build; name "
                "another file: -o FILE"
            )
    check_writable(output, folder)


def check_kept(place: Path, inputs: Iterable[Path]) -> None:
    """See that no file that is read lies in the folder that is to be replaced.

    Raises:
        BuildFailed: one does.
    """
    for each in inputs:
        if each.resolve().is_relative_to(place.resolve()):
            raise BuildFailed(
                f"{place} cannot be replaced: {each}, which is read for this build, lies in it; "
                "name another folder: -o FOLDER"
            )


def check_writable(output: Path, folder: Path) -> None:
    """See that `output` can be made in a folder, by making a file there that is gone at once.

    Raises:
        BuildFailed: it cannot.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix=".nerve-", dir=folder):
            pass
    except PermissionError as error:
        detail = f"{output} cannot be written: no permission to write into {folder}"
        raise BuildFailed(detail) from error
    except OSError as error:
        raise BuildFailed(f"{output} cannot be written: {error.strerror}") from error


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


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
