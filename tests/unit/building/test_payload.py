"""The format of built files: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve.building.faults import BuildFailed, BuiltFileInvalid
from nerve.building.payload import Blob, Packing, footer, read_built_file

PROGRAM = b"#!/bin/sh\nexit 0\n"


def write(path: Path, packing: Packing, *, behind: bytes = b"archive") -> Path:
    with path.open("wb") as file:
        start = file.write(PROGRAM)
        length = packing.write(file)
        file.write(behind)
        file.write(footer(start, length))
    return path


def small(path: Path) -> Path:
    packing = Packing()
    packing.manifest.name = "x"
    packing.put(packing.manifest.weights, Blob.of(b"the weights"))
    packing.put(packing.manifest.tokenizer, Blob.of(b"{}"))
    return write(path, packing)


@given(contents=st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_contents_come_back(
    contents: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever they are, empty and equal ones, too; equal ones are in the file once."""
    path = tmp_path_factory.mktemp("built") / "x"
    packing = Packing()
    for content in contents:
        packing.put(packing.manifest.nerve_folder.files.add(place="p").content, Blob.of(content))
    packing.put(packing.manifest.weights, Blob.of(contents[0]))
    built = read_built_file(write(path, packing))
    built.check()
    files = built.manifest.nerve_folder.files
    assert [built.content(file.content) for file in files] == contents
    assert built.content(built.manifest.weights) == contents[0]
    once = sum(map(len, set(contents)))
    manifest_bytes = built.manifest.ByteSize()
    assert path.stat().st_size == len(PROGRAM) + manifest_bytes + once + len(b"archive") + 32


def test_the_layout_is_that_of_encoderfile(tmp_path: Path) -> None:
    """Read with nothing but the contract: footer, manifest, offsets from where that begins."""
    content = small(tmp_path / "x").read_bytes()
    magic, format_, start, length, flags = struct.unpack("<8sIQQI", content[-32:])
    assert (magic, format_, start, flags) == (b"ENCFILE\0", 1, len(PROGRAM), 1)
    manifest = pb.EncoderfileManifest.FromString(content[start : start + length])
    weights = content[start + manifest.weights.offset :][: manifest.weights.length]
    assert weights == b"the weights"
    assert manifest.weights.sha256 == hashlib.sha256(weights).digest()
    assert not manifest.HasField("transform")


def test_a_file_that_was_cut_short_or_goes_on_is_none(tmp_path: Path) -> None:
    content = small(tmp_path / "x").read_bytes()
    other = tmp_path / "other"
    for length in range(len(content)):
        other.write_bytes(content[:length])
        with pytest.raises(BuiltFileInvalid, match="cut short"):
            read_built_file(other)
    other.write_bytes(content + b"\n")
    with pytest.raises(BuiltFileInvalid, match="no file that `nerve build` or Encoderfile"):
        read_built_file(other)


def test_a_bit_that_turned_is_noticed(tmp_path: Path) -> None:
    """In the manifest, in the contents or in the footer; only the program has none that watches it."""
    path = small(tmp_path / "x")
    content, length = path.read_bytes(), read_built_file(path).manifest.ByteSize()
    watched = [*range(len(PROGRAM) + length, len(content) - 32 - len(b"archive"))]
    watched += range(len(content) - 32, len(content) - 3)  # other flags may mean something one day
    for place in watched:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(BuiltFileInvalid):
            read_built_file(path).check()


@given(noise=st.binary(max_size=200), end=st.binary(min_size=24, max_size=24))
def test_noise_is_refused_in_words(
    noise: bytes, end: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the right magic, too: no offset leads to anything but an error of ours."""
    path = tmp_path_factory.mktemp("noise") / "x"
    path.write_bytes(noise + b"ENCFILE\0" + end)
    with pytest.raises(BuiltFileInvalid):
        read_built_file(path).check()
    path.write_bytes(noise + footer(0, len(noise)))
    with contextlib.suppress(BuiltFileInvalid):
        read_built_file(path).check()


def test_another_format_is_named(tmp_path: Path) -> None:
    path = small(tmp_path / "x")
    content = path.read_bytes()
    path.write_bytes(content[:-24] + struct.pack("<I", 2) + content[-20:])
    with pytest.raises(BuiltFileInvalid, match=r"is of format 2 .*reads format 1"):
        read_built_file(path)


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(BuiltFileInvalid, match="No such file"):
        read_built_file(tmp_path / "none")
    with pytest.raises(BuiltFileInvalid, match="Is a directory"):
        read_built_file(tmp_path)


def test_a_source_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    packing = Packing()
    packing.put(packing.manifest.weights, Blob.of(source))
    source.write_bytes(b"after!")
    with pytest.raises(BuildFailed, match="source has changed"):
        write(tmp_path / "x", packing)
    source.unlink()
    with pytest.raises(BuildFailed, match="cannot be read: No such file"):
        Blob.of(source)
