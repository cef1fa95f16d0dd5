"""The model in a built file: Encoderfile's format (proto/encoderfile/manifest.proto), written and read.

What the contents mean is the business of `contents`, what is before and behind them that of
`assembly`.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve.building.faults import BuildFailed, BuiltFileInvalid

MAGIC: Final = b"ENCFILE\0"
FORMAT: Final = 1
FOOTER: Final = struct.Struct("<8sIQQI")
"""Magic, format, offset and length of the manifest, flags: 32 bytes."""
_PROTOBUF: Final = 1
_CHUNK_BYTES: Final = 1 << 20
_MAX_MANIFEST_BYTES: Final = 1 << 24
_ARTIFACTS: Final = ("weights", "transform", "model_config", "tokenizer", "image_preprocessor")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that go into a file: those of another file, or given ones. Equal for equal bytes."""

    length: int
    sha256: bytes
    source: Path | bytes = field(compare=False)

    @classmethod
    def of(cls, source: Path | bytes) -> Blob:
        """Raises BuildFailed: the file cannot be read."""
        digest, length = hashlib.sha256(), 0
        for part in _parts(source):
            digest.update(part)
            length += len(part)
        return cls(length, digest.digest(), source)


class Packing:
    """Contents on their way into a file, each once, and the manifest that names them."""

    def __init__(self) -> None:
        self.manifest = pb.EncoderfileManifest()
        self._offsets: dict[Blob, int] = {}
        self._artifacts: list[pb.Artifact] = []
        self._end = 0

    def put(self, artifact: pb.Artifact, blob: Blob) -> None:
        """Have an artifact of the manifest name these bytes."""
        if blob not in self._offsets:
            self._offsets[blob] = self._end
            self._end += blob.length
        # One more than it is, until the manifest's length is known: protobuf leaves zeros out,
        # and then it would get longer by its offsets.
        artifact.offset = self._offsets[blob] + 1
        artifact.length, artifact.sha256 = blob.length, blob.sha256
        self._artifacts.append(artifact)

    @property
    def blobs(self) -> Sequence[Blob]:
        """What was put in, in its order."""
        return list(self._offsets)

    def write(self, target: BinaryIO) -> int:
        """Write the manifest and its contents; once. Returns the manifest's length in bytes.

        Raises:
            BuildFailed: a file has changed since it was put in.
            OSError: from the target.
        """
        length = self.manifest.ByteSize()
        for artifact in self._artifacts:
            artifact.offset += length - 1
        target.write(self.manifest.SerializeToString())
        for blob in self._offsets:
            digest = hashlib.sha256()
            for part in _parts(blob.source):
                digest.update(part)
                target.write(part)
            if digest.digest() != blob.sha256:
                raise BuildFailed(f"{blob.source!s} has changed while it was read; build again")
        return length


def footer(offset: int, length: int) -> bytes:
    """The end of a file whose manifest lies there. Pure."""
    return FOOTER.pack(MAGIC, FORMAT, offset, length, _PROTOBUF)


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A built file whose manifest has been read; `start` is where that lies, in bytes."""

    path: Path
    start: int
    manifest: pb.EncoderfileManifest

    def content(self, artifact: pb.Artifact) -> bytes:
        """All bytes of an artifact. Raises as `copy`."""
        return b"".join(self._checked(artifact))

    def copy(self, artifact: pb.Artifact, target: BinaryIO) -> None:
        """Write the bytes of an artifact.

        Raises:
            BuiltFileInvalid: they are not those that were put in.
            OSError: from the target.
        """
        for part in self._checked(artifact):
            target.write(part)

    def check(self) -> None:
        """Read all artifacts. Raises BuiltFileInvalid as `copy`."""
        for artifact in {each.offset: each for each in artifacts_of(self.manifest)}.values():
            for _ in self._checked(artifact):
                pass

    def _checked(self, artifact: pb.Artifact) -> Iterator[bytes]:
        """An artifact in parts; after the last it raises if they are not those that were put in."""
        digest, left = hashlib.sha256(), artifact.length
        try:
            with self.path.open("rb") as file:
                file.seek(self.start + artifact.offset)
                while left and (part := file.read(min(left, _CHUNK_BYTES))):
                    left -= len(part)
                    digest.update(part)
                    yield part
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if digest.digest() != artifact.sha256:
            detail = (
                "is damaged: its contents are not those that were put in; build or copy it again"
            )
            raise BuiltFileInvalid(str(self.path), detail)


def read_built_file(path: Path) -> BuiltFile:
    """Find the manifest of a file that a build of ours or of Encoderfile made.

    Raises:
        BuiltFileInvalid: it is none, is cut short, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, io.SEEK_END)
            file.seek(max(0, size_bytes - FOOTER.size))
            start, length = _place(path, file.read(), size_bytes)
            file.seek(start)
            content = file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = pb.EncoderfileManifest.FromString(content)
    except DecodeError:
        raise BuiltFileInvalid(str(path), "is damaged: its manifest cannot be read") from None
    for artifact in artifacts_of(found):
        if start + artifact.offset + artifact.length > size_bytes - FOOTER.size:
            raise BuiltFileInvalid(
                str(path), "is damaged: its manifest names what is beyond its end"
            )
    return BuiltFile(path, start, found)


def artifacts_of(found: pb.EncoderfileManifest) -> Iterable[pb.Artifact]:
    """Every artifact that a manifest names, some perhaps twice."""
    for name in _ARTIFACTS:
        if found.HasField(name):
            yield getattr(found, name)
    for file in found.nerve_folder.files:
        yield file.content


def _place(path: Path, end: bytes, size_bytes: int) -> tuple[int, int]:
    """Offset and length of the manifest, by the footer."""
    if len(end) < FOOTER.size or not end.startswith(MAGIC):
        detail = (
            "is no file that `nerve build` or Encoderfile has made, or it is cut short: "
            "it does not end as one"
        )
        raise BuiltFileInvalid(str(path), detail)
    _, format_, start, length, flags = FOOTER.unpack(end)
    if format_ != FORMAT or not flags & _PROTOBUF:
        detail = f"is of format {format_} (flags {flags}); this Nerve reads format {FORMAT}"
        raise BuiltFileInvalid(str(path), detail)
    if start + length > size_bytes - FOOTER.size or length > _MAX_MANIFEST_BYTES:
        raise BuiltFileInvalid(str(path), "is damaged: its end names a manifest beyond it")
    return start, length


def _parts(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with source.open("rb") as file:
            while part := file.read(_CHUNK_BYTES):
                yield part
    except OSError as error:
        raise BuildFailed(f"{source} cannot be read: {error.strerror or error}") from error


def _unreadable(path: Path, error: OSError) -> BuiltFileInvalid:
    return BuiltFileInvalid(str(path), f"cannot be read: {error.strerror or error}")
