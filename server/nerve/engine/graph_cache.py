"""Graphs as ONNX Runtime optimised them, or as they were converted, kept for the next load.

Only what has been loaded and run is kept: `nerve.proof_server` writes optimised graphs, in a process
that may crash, `nerve.conversion` converted ones. An entry is found by what it was made of
(`entry_key`) and carries a checksum in its name, so a damaged one is no entry. The checksum tells
damage, not malice: the folder is trusted, and so it must be one that nobody else can write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nerve.config.running import GraphLevel
from nerve.engine.session import optimise, runtime_identity
from nerve.errors import ModelLoadFailed
from nerve.types import VersionFiles

Warn = Callable[[str], None]

FORMAT: Final = 2
"""Goes into every key; another one makes all entries of before unknown."""
MAX_SOURCE_BYTES: Final = 2**31 - 1
"""What a single protobuf file can hold, and so the weights of an entry."""
CPU_PROVIDER: Final = "CPUExecutionProvider"
LEFTOVER_S: Final = 24 * 3600.0
"""A temporary file as old as that belongs to a process that is no more."""
_TEMPORARY, _ENTRY = ".tmp", ".onnx"
_CHUNK_BYTES: Final = 1 << 20
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class NotCachedError(Exception):
    """No entry was made; the text says why."""


@dataclass(frozen=True, slots=True)
class GraphCache:
    """The folder, and how much may be in it. Methods work on files, so they are for threads."""

    folder: Path
    max_bytes: int

    def refusal(self) -> str:
        """Why nothing of this folder is used; empty if it can be, or is not there yet."""
        try:
            status = self.folder.stat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it cannot be looked at: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return "it is no folder"
        if not _ours(status):
            return (
                "others can write to it, and whoever writes graphs decides what this server "
                "answers; name a folder of the server's own, or one that is still to be made"
            )
        return ""

    def find(self, files: VersionFiles, level: GraphLevel, *, warn: Warn) -> Path | None:
        """The entry of a version, whole as far as its checksum tells; damaged ones are deleted."""
        return self.find_entry(self._key(files, level), warn=warn)

    def find_entry(self, key: str | None, *, warn: Warn) -> Path | None:
        """As `find`, by key; None has no entry."""
        if key is None or self.refusal():
            return None
        for path in sorted(self.folder.glob(f"{key}-*{_ENTRY}")):
            try:
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode) or not _ours(status):
                    continue
                whole = path.stem == f"{key}-{checksum(path)}"
            except OSError as error:
                warn(f"the cached graph {path} cannot be read: {error.strerror}")
                continue
            if whole:
                return path
            warn(f"the cached graph {path} is damaged; it is deleted")
            self.discard(path)
        return None

    def can_hold(self, files: VersionFiles, level: GraphLevel) -> bool:
        """Whether there can be an entry of a version at all."""
        return self._key(files, level) is not None

    def touch(self, path: Path) -> None:
        """Note that an entry is in use: those unused for longest go first."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def discard(self, path: Path) -> None:
        """Delete an entry or a temporary file, if it is there and can be deleted."""
        with contextlib.suppress(OSError):
            path.unlink()

    def temporary(self, token: str) -> Path:
        """Where an entry is written first."""
        return self.folder / f".{token}{_TEMPORARY}"

    def write(self, files: VersionFiles, level: GraphLevel, temporary: Path) -> None:
        """Optimise the graph of a version into a temporary file.

        Raises:
            NotCachedError: with the reason; there is no file then.
        """
        try:
            self._make_ready()
            graph, external = _read(files)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise NotCachedError(error.strerror or str(error)) from error
        try:
            optimise(graph, temporary, graph_level=level, external=external)
        except ModelLoadFailed as error:
            # The runtime tells that it could not write, but not why.
            reason = _why_not_written(temporary) or str(error)
            self.discard(temporary)
            raise NotCachedError(reason) from error

    def keep(self, files: VersionFiles, level: GraphLevel, temporary: Path) -> Path:
        """Make a temporary file that has been proved the entry of its version.

        Raises:
            NotCachedError: with the reason; the temporary file is still there.
        """
        return self._keep(self._key(files, level), temporary)

    def keep_copy(self, key: str, graph: Path, *, token: str) -> Path:
        """Make a copy of a graph that has been proved the entry of `key`.

        Raises:
            NotCachedError: with the reason; nothing is left of the copy.
        """
        temporary = self.temporary(token)
        try:
            self._make_ready()
            number = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with graph.open("rb") as source, os.fdopen(number, "wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK_BYTES)
            return self._keep(key, temporary)
        except OSError as error:
            raise NotCachedError(error.strerror or str(error)) from error
        finally:
            self.discard(temporary)

    def _make_ready(self) -> None:
        """Raises OSError, NotCachedError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if refusal := self.refusal():
            raise NotCachedError(refusal)
        self._sweep()

    def _keep(self, key: str | None, temporary: Path) -> Path:
        try:
            size = temporary.stat().st_size
            if size > self.max_bytes:
                raise NotCachedError(f"it has {size} bytes, more than graph_cache_bytes")
            entry = self.folder / f"{key}-{checksum(temporary)}{_ENTRY}"
            # Not synced: what a power failure leaves of it no longer has its checksum.
            temporary.replace(entry)
        except OSError as error:
            raise NotCachedError(error.strerror or str(error)) from error
        self._evict(entry, size)
        return entry

    def _key(self, files: VersionFiles, level: GraphLevel) -> str | None:
        contents = contents_of(files)
        if contents is None or level is GraphLevel.DISABLE:
            return None
        return entry_key(
            contents,
            level,
            runtime=runtime_identity(),
            machine=machine_identity(),
            provider=CPU_PROVIDER,
        )

    def _sweep(self) -> None:
        """Delete temporary files that nobody will finish."""
        for path in self.folder.glob(f".*{_TEMPORARY}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFTOVER_S:
                    path.unlink()

    def _evict(self, new: Path, size: int) -> None:
        """Make room for `new`, which is there already."""
        others = []
        for path in self.folder.glob(f"*{_ENTRY}"):
            with contextlib.suppress(OSError):
                if path != new:
                    status = path.stat()
                    others.append((status.st_mtime_ns, path, status.st_size))
        left = self.max_bytes - size
        for _, path, taken in sorted(others, reverse=True):
            left -= taken
            if left < 0:
                self.discard(path)


def contents_of(files: VersionFiles) -> list[object] | None:
    """The digests of a graph and its data, for a key; None if one is not known."""
    if files.onnx is None:
        return None
    graph = files.digests.get(files.onnx)
    external = {name: files.digests.get(path) for name, path in files.external.items()}
    if graph is None or None in external.values():
        return None
    return [graph, sorted(external.items())]


def entry_key(contents: object, made: str, *, runtime: str, machine: str, provider: str) -> str:
    """The name of whatever is made of `contents` here. Pure.

    Args:
        contents: digests of the graph and of its data.
        made: what is done with it: the level that it is optimised to, or a conversion.
        runtime: `nerve.engine.session.runtime_identity`.
        machine: `machine_identity`; optimised graphs may be laid out for one kind of CPU.
        provider: the runtime's name of the device that it is made for.
    """
    told = json.dumps([FORMAT, contents, made, runtime, machine, provider])
    return hashlib.sha256(told.encode()).hexdigest()[:40]


def machine_identity() -> str:
    """What the runtime may look at when it optimises: system, architecture, CPU and its features."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        first = itertools.takewhile(str.strip, lines)  # all cores are alike
        facts += [line.strip() for line in first if line.startswith(wanted)]
    return "\n".join(facts)


def checksum(path: Path) -> str:
    """Tells a damaged file from a whole one, several times as fast as a hash of all of it would.

    Raises:
        OSError: it cannot be read.
    """
    sums = hashlib.sha256()
    chunk = bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            words, rest = divmod(count, 8)
            total = np.frombuffer(chunk, dtype="<u8", count=words).sum(dtype=np.uint64)
            sums.update(b"%d %d " % (count, total) + chunk[count - rest : count])
    return sums.hexdigest()[:16]


def _ours(status: os.stat_result) -> bool:
    """Whether only this user, or root, can have written it."""
    user = getattr(os, "geteuid", lambda: 0)()
    return status.st_uid in {0, user} and not status.st_mode & _OTHERS_WRITE


def _read(files: VersionFiles) -> tuple[bytes, dict[str, bytes]]:
    """Graph and data, known to be what the key says: files may change while a model is proved."""
    assert files.onnx is not None  # or there would be no key
    paths = [files.onnx, *files.external.values()]
    if sum(path.stat().st_size for path in paths) > MAX_SOURCE_BYTES:
        raise NotCachedError("it is over 2 GB, and so more than one file can hold")
    contents = {path: path.read_bytes() for path in paths}
    for path, content in contents.items():
        if hashlib.sha256(content).hexdigest() != files.digests[path]:
            raise NotCachedError("its files have changed meanwhile")
    return contents[files.onnx], {name: contents[path] for name, path in files.external.items()}


def _why_not_written(path: Path) -> str:
    """What the system says to more being written to a file; empty if it takes it."""
    try:
        with path.open("ab") as file:
            file.write(bytes(_CHUNK_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""
