"""The program part of a built file: which one fits this Nerve, where it is kept, what is in it.

A runtime is PyInstaller's boot loader and, behind it, the archive that this unpacks. A model goes
between the two: the boot loader looks for its archive from the end of the file backwards, which takes
it over a second for every 100 MB that are behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import nerve
from nerve.building.faults import BuildFailed
from nerve.building.payload import MAGIC

INFO_FILE: Final = "nerve-runtime.json"
"""In the archive: what runtime this is."""
MAKING: Final = "making-"
"""How the name of a folder begins in which a runtime is made, in the cache."""
KEPT: Final = 3
"""Runtimes that stay in the cache; those used last."""
_PACKAGE: Final = Path(nerve.__file__).parent
_COOKIE: Final = struct.Struct("!8sIIII64s")
"""End of PyInstaller's archive: magic, length, offset and length of its table, Python, its library."""
_COOKIE_MAGIC: Final = b"MEI\014\013\012\013\016"
_ENTRY: Final = struct.Struct("!IIIIBc")
"""PyInstaller's row of the table: length of the row, offset, length, length unpacked, packed, kind."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime on the disk. `archive` is where its boot loader ends, in bytes from the start."""

    path: Path
    archive: int
    info: Mapping[str, str]


def host_target() -> str:
    """This machine's name as Rust's tools write it."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "darwin":
        return f"{machine}-apple-darwin"
    if sys.platform == "win32":
        return f"{machine}-pc-windows-msvc"
    return f"{machine}-unknown-linux-{'gnu' if platform.libc_ver()[0] == 'glibc' else 'musl'}"


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where runtimes are kept if nobody says: $XDG_CACHE_HOME/nerve, else ~/.cache/nerve."""
    base = environment.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # as the specification wants it  # noqa: PTH117
        return Path(base) / "nerve"
    try:
        return Path.home() / ".cache" / "nerve"
    except RuntimeError as error:
        detail = "there is no home folder to keep the runtime in; name a folder: --cache-dir"
        raise BuildFailed(detail) from error


def runtime_key() -> str:
    """What a runtime made here would be made of, as a digest: our code, packages, Python, system."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    # By the names of their folders, which hold the version; reading what is in them takes a second.
    packages = {each.name for path in sys.path if path for each in Path(path).glob("*.dist-info")}
    digest.update("\n".join(sorted(packages)).encode())
    digest.update(f"\0{sys.version}\0{platform.platform()}\0{host_target()}".encode())
    return digest.hexdigest()[:32]


def cached_runtime(cache: Path, key: str) -> Runtime | None:
    """The runtime of that key in a cache, None if there is none that can be used."""
    path = _place(cache, key)
    try:
        runtime = read_runtime(path)
        os.utime(path)  # for `_drop_old`
    except (BuildFailed, OSError):
        return None
    return runtime


@contextlib.contextmanager
def cache_lock(cache: Path) -> Iterator[None]:
    """Be the only one that makes a runtime for this cache.

    Raises:
        BuildFailed: the folder cannot be written.
    """
    try:
        (cache / "runtimes").mkdir(parents=True, exist_ok=True)
        lock = (cache / "runtimes" / "lock").open("ab")
    except OSError as error:
        detail = f"{cache} cannot be written ({error.strerror}); name another folder: --cache-dir"
        raise BuildFailed(detail) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, also by our death
        for left in (cache / "runtimes").glob(f"{MAKING}*"):  # of one that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield


def keep_runtime(cache: Path, key: str, made: Path) -> Runtime:
    """Move a runtime that was made beside it into the cache; under `cache_lock`."""
    path = _place(cache, key)
    made.chmod(0o755)
    made.replace(path)
    for old in sorted(path.parent.glob("runtime-*"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return read_runtime(path)


def read_runtime(path: Path) -> Runtime:
    """Look at a runtime.

    Raises:
        BuildFailed: the file is none, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return Runtime(path, *_read(file, path))
    except OSError as error:
        raise BuildFailed(f"the runtime {path} cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, zlib.error) as error:
        raise BuildFailed(f"the runtime {path} is damaged: {error}") from error


def _read(file: BinaryIO, path: Path) -> tuple[int, Mapping[str, str]]:
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - _COOKIE.size))
    end = file.read()
    if not end.startswith(_COOKIE_MAGIC) or len(end) < _COOKIE.size:
        has_model = MAGIC in end
        detail = (
            "has a model in it already; name the file that nerve build keeps in its cache"
            if has_model
            else "is no runtime of Nerve; without --base-binary-path nerve build makes one by itself"
        )
        raise BuildFailed(f"{path} {detail}")
    _, length, table, table_length, _, _ = _COOKIE.unpack(end)
    archive = size_bytes - length
    if archive < 0:
        raise ValueError("it is cut short")
    file.seek(archive + table)
    for offset, packed_length, packed, name in _entries(file.read(table_length)):
        if name == INFO_FILE:
            file.seek(archive + offset)
            content = file.read(packed_length)
            return archive, json.loads(zlib.decompress(content) if packed else content)
    raise BuildFailed(f"{path} is a program of PyInstaller, but no runtime of Nerve")


def _entries(table: bytes) -> Iterator[tuple[int, int, bool, str]]:
    """Offset, length, whether it is packed, and name of what is in an archive. Pure."""
    at = 0
    while at < len(table):
        row, offset, length, _, packed, _ = _ENTRY.unpack_from(table, at)
        if row <= _ENTRY.size:
            raise ValueError("its table cannot be read")
        yield (
            offset,
            length,
            bool(packed),
            table[at + _ENTRY.size : at + row].rstrip(b"\0").decode(),
        )
        at += row


def _place(cache: Path, key: str) -> Path:
    return cache / "runtimes" / f"runtime-{key}"
