"""The optional SHA256SUMS of a version: whether its files are whole, as sha256sum(1) would tell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nerve.repository.files import open_regular, printed, told

_MAX_BYTES: Final = 1 << 20
_LINE: Final = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>[^\0]+)")
_TAGGED: Final = re.compile(
    r"(?P<escaped>\\?)SHA256 \((?P<name>[^\0]+)\) = (?P<digest>[0-9a-fA-F]{64})"
)
_ESCAPES: Final = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def verify(sums: Path, contents: Mapping[Path, str]) -> str:
    """Compare files with what a checksum file says of them. Raises nothing.

    Args:
        sums: the checksum file; the names in it are relative to its folder.
        contents: the digests of the files that matter. Others only have to be there.
    Returns:
        What is wrong, or nothing.
    """
    try:
        with open_regular(sums) as file:
            listing = file.read(_MAX_BYTES + 1)
    except OSError as error:
        return f"{sums.name} cannot be read: {told(error)}"
    if len(listing) > _MAX_BYTES:
        return f"{sums.name} is over {_MAX_BYTES} bytes"
    known = {os.path.realpath(path): digest for path, digest in contents.items()}
    lines = listing.decode("utf-8", "backslashreplace").split("\n")
    for number, line in enumerate((each.removesuffix("\r") for each in lines), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line) or _TAGGED.fullmatch(line)
        if parts is None:
            return f"{sums.name} line {number} is not what sha256sum writes"
        if fault := _fault(sums, _name(parts), parts["digest"].lower(), known):
            return fault
    return ""


def _name(parts: re.Match[str]) -> str:
    if not parts["escaped"]:
        return parts["name"]
    return re.sub(r"\\.", lambda each: _ESCAPES.get(each[0], each[0]), parts["name"])


def _fault(sums: Path, name: str, expected: str, known: Mapping[str, str]) -> str:
    """What is wrong with one file, or nothing."""
    told_name = printed(name)
    normal = os.path.normpath(name)
    if normal.startswith(("/", "..")):
        return f"{sums.name} names {told_name}, which is outside of its folder"
    path = sums.parent / normal
    found = known.get(os.path.realpath(path))
    damaged = "the copy is incomplete or damaged"
    if found is None and not os.path.lexists(path):
        return f"{sums.name} names {told_name}, which is not there: {damaged}"
    if found is not None and found != expected:
        return (
            f"{sums.name} says {expected[:12]}… of {told_name}, which is {found[:12]}…: {damaged}"
        )
    return ""
