"""What a version's files hold, told by content: its fingerprint, what it still lacks, what is broken.

Everything here reads the disk and is for a thread. Which files belong to a version is the business
of `layout`, when to look that of the callers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path, PureWindowsPath
from typing import Final, TypeVar

from nerve.repository.checksums import verify
from nerve.repository.files import FileId, file_id, is_lfs_pointer, open_regular, printed, told
from nerve.repository.layout import CHECKSUM_FILE
from nerve.repository.onnx_file import ExternalFiles, read_external_from
from nerve.types import VersionFiles

T = TypeVar("T")

_CHUNK_BYTES: Final = 1 << 20
_RACY_NS: Final = 2_000_000_000
"""Younger files can be written to again without a change of their times: those may count in steps
of two seconds (FAT), and a kernel's clock ticks every few milliseconds."""

Stamp = tuple[tuple[str, FileId | str], ...]
"""Files by path and what the file system tells of each, or why it tells nothing. Equal stamps:
nobody has touched the files in between, as far as can be seen without reading them."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A version that was read.

    `files` has `external` and `digests` filled in and `problem` set if the version cannot be loaded
    as it is; its `onnx` is kept then. `fingerprint` is equal for equal contents in equal roles,
    wherever and whenever they were written. `stamp` is that of all `files`, taken before they were read.
    """

    files: VersionFiles
    fingerprint: str
    stamp: Stamp


class Digests:
    """Contents read before, so that only files that changed are read again.

    Several threads may share it: at worst a file is read twice.

    A result is remembered for as long as the file keeps its inode, size and times, and only if
    those were old enough when it was read: git's rule for "racily clean" files. So an edit that
    keeps size and times is noticed, unless somebody forges the inode's change time as well.
    """

    def __init__(self, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """`clock_ns` is wall-clock time, as the file system writes it."""
        self._clock_ns = clock_ns
        self._digests: dict[Path, tuple[FileId, str]] = {}
        self._external: dict[Path, tuple[FileId, ExternalFiles]] = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of the content, in hexadecimal digits.

        Raises:
            OSError: the file cannot be read.
            ValueError: the path cannot be one.
        """
        return self._read(self._digests, path, _sha256)

    def external(self, graph: Path) -> ExternalFiles:
        """`onnx_file.read_external`. Raises as `digest` does."""
        name = printed(graph.name)
        return self._read(self._external, graph, lambda file: read_external_from(file, name))

    def forget(self, keep: Iterable[Path]) -> None:
        """Drop what is known of all other paths, which are not in use any more."""
        kept = frozenset(keep)
        # Lists first: other threads may add to them meanwhile.
        digests, external = list(self._digests.items()), list(self._external.items())
        self._digests = {path: entry for path, entry in digests if path in kept}
        self._external = {path: entry for path, entry in external if path in kept}

    def _read(
        self, known: dict[Path, tuple[FileId, T]], path: Path, read: Callable[[FileIO], T]
    ) -> T:
        entry = known.get(path)
        if entry is not None and entry[0] == file_id(path.stat()):
            return entry[1]
        with open_regular(path) as file:
            now_ns = self._clock_ns()
            before = file_id(os.fstat(file.fileno()))
            result = read(file)
            after = file_id(os.fstat(file.fileno()))
        if before == after and _settled(before, now_ns):
            known[path] = before, result
        else:
            known.pop(path, None)
        return result


def _settled(file: FileId, now_ns: int) -> bool:
    """Whether any later write would show in the file's times."""
    # People set the modification time, to years in the future as well; the other is the kernel's.
    modified_just_now = abs(now_ns - file.modified_ns) <= _RACY_NS
    return not modified_just_now and now_ns - file.changed_ns > _RACY_NS


def _sha256(file: FileIO) -> str:
    digest = hashlib.sha256()
    # Not to the end of the file: somebody may be writing to it faster than we read.
    left = os.fstat(file.fileno()).st_size
    chunk = memoryview(bytearray(min(_CHUNK_BYTES, left)))
    while left > 0 and (count := file.readinto(chunk[:left])):
        digest.update(chunk[:count])
        left -= count
    return digest.hexdigest()


def stamp(files: Iterable[Path]) -> Stamp:
    """What the file system tells of files; reads none of them, and raises nothing."""
    return tuple((str(path), _told_of(path)) for path in sorted(set(files)))


def _told_of(path: Path) -> FileId | str:
    try:
        return file_id(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError) as error:
        return f"unreadable: {told(error)}"


def inspect_version(files: VersionFiles, digests: Digests) -> Inspected:
    """Read all files of a version. Raises nothing: what cannot be read is a problem of `files`."""
    seen = stamp(_paths(files))
    found = with_external(files, digests)
    # Only now do we know these; a graph that changed in between no longer has the stamp in `seen`.
    seen = tuple(sorted({**dict(stamp(found.external.values())), **dict(seen)}.items()))
    contents, unreadable = _contents(found, digests)
    problem = found.problem or unreadable
    sums = found.side.get(CHECKSUM_FILE)
    if sums is not None and not problem:
        problem = verify(sums, {path: contents[role] for role, path in _roles(found).items()})
    if problem:
        found, contents = replace(found, problem=problem), {**contents, "problem": problem}
    else:
        graph = {
            path: contents[role]
            for role, path in _roles(found).items()
            if role.startswith(("graph", "external "))
        }
        found = replace(found, digests=graph)
    told_in_order = json.dumps(contents, sort_keys=True)
    return Inspected(found, hashlib.sha256(told_in_order.encode()).hexdigest(), seen)


def with_external(files: VersionFiles, digests: Digests) -> VersionFiles:
    """`files` with the data files that its graph names, or with the problem that it has.

    Reads no weights. Raises nothing.
    """
    if files.onnx is None or files.problem:
        return files
    name = printed(files.onnx.name)
    try:
        named = digests.external(files.onnx)
        # As in the runtime: data lies beside the graph, or beside the file that it is a link to.
        homes = (files.onnx.parent.resolve(), files.onnx.resolve().parent)
    except (OSError, RuntimeError, ValueError) as error:
        return replace(files, problem=f"{name} cannot be read: {told(error)}")
    problems = [named.fault] if named.fault else []
    external: dict[str, Path] = {}
    for location, size_bytes in zip(named.locations, named.sizes_bytes, strict=True):
        path = files.onnx.parent / location
        what = f"{printed(location)}, which {name} names,"
        fault = _leads_out(path, location, what, homes)
        if not fault:
            external[location] = path
            fault = _lacks(path, what, size_bytes)
        problems += [fault] if fault else []
    return replace(files, external=external, problem=_joined(problems))


def _joined(problems: list[str]) -> str:
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _leads_out(path: Path, location: str, what: str, homes: Collection[Path]) -> str:
    """Why an external file may not be read, whatever is there; empty if it may."""
    if location.startswith("/") or PureWindowsPath(location).is_absolute():
        return f"{what} is an absolute path; data must lie beside its graph"
    if Path(os.path.normpath(location)).parts[:1] == (os.pardir,):
        return f"{what} is outside of its folder"
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        return f"{what} is a link that leads nowhere"
    if any(real.is_relative_to(home) for home in homes):
        return ""
    return f"{what} is a link that leads out of its folder; copy the file"


def _lacks(path: Path, what: str, size_bytes: int) -> str:
    """Why an external file cannot be used as it is, empty if it can; its content is not read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size >= size_bytes:
                return ""
            if is_lfs_pointer(file):
                return f"{what} is only a Git LFS pointer; run `git lfs pull`"
            return f"{what} has {size} of the {size_bytes} bytes that it needs: it is incomplete"
    except (FileNotFoundError, NotADirectoryError):
        return f"waits for {what.removesuffix(',')}: it is not there (yet)"
    except OSError as error:
        return f"{what} cannot be read: {told(error)}"


def _roles(files: VersionFiles) -> dict[str, Path]:
    """The files that make a version what it is, by what each is for.

    Not those that only tell of the others: a checksum file may come and go without a reload, and
    of a config it only counts what it says.
    """
    single = {"graph": files.onnx, "golden": files.golden}
    roles = {role: path for role, path in single.items() if path is not None}
    roles |= {f"external {location}": path for location, path in files.external.items()}
    side = {f"side {name}": path for name, path in files.side.items() if name != CHECKSUM_FILE}
    return roles | side


def _paths(files: VersionFiles) -> list[Path]:
    others = (files.side.get(CHECKSUM_FILE), files.config)
    return [*_roles(files).values(), *(path for path in others if path is not None)]


def _contents(files: VersionFiles, digests: Digests) -> tuple[dict[str, str], str]:
    """Digests by role, and what cannot be read, if anything."""
    contents: dict[str, str] = {}
    problems = []
    for role, path in _roles(files).items():
        try:
            contents[role] = digests.digest(path)
        except (OSError, ValueError) as error:
            contents[role] = f"unreadable: {told(error)}"
            problems.append(f"{printed(path.name)} cannot be read: {told(error)}")
    return contents, _joined(problems)
