"""The data files that an ONNX file names, and whether it is all there; no `onnx` package is needed.

A graph may be a gigabyte, and somebody may cut it short while we look. So it is walked field by
field with small reads that skip the weights: never as a whole in memory, and never by mmap, where
a file that shrinks ends the process by SIGBUS. What the graph computes is not looked at, but for
operators that make an answer depend on its neighbours in a batch.

The field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto):

    ModelProto      graph = 7, opset_import = 8, functions = 25
    GraphProto      node = 1, initializer = 5, sparse_initializer = 15
    NodeProto       op_type = 4, attribute = 5
    AttributeProto  t = 5, g = 6, tensors = 10, graphs = 11, sparse_tensor = 22, sparse_tensors = 23
    SparseTensorProto   values = 1, indices = 2
    FunctionProto   node = 7, attribute_proto = 11
    TensorProto     external_data = 13, data_location = 14 (EXTERNAL = 1)
    StringStringEntryProto  key = 1, value = 2
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nerve.errors import shown
from nerve.repository.files import is_lfs_pointer, open_regular, printed, told
from nerve.types import VersionFiles

_WINDOW_BYTES: Final = 16 * 1024
"""Read at a time: many small fields, but not much of the weights behind them."""
_MAX_DEPTH: Final = 100
"""Messages in messages; protobuf's own limit, so the runtime reads nothing deeper."""
_MAX_LOCATION_BYTES: Final = 4096
"""Of an external file's name: longer than any path."""
_EXTERNAL: Final = 1

# wire types: https://protobuf.dev/programming-guides/encoding/
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_GRAPH, _OPSET_IMPORT = 7, 8
_MODEL_FIELDS: Final = MappingProxyType(
    dict.fromkeys((2, 3, 4, 6, _GRAPH, _OPSET_IMPORT, 14, 20, 25, 26), _LENGTH)
    | dict.fromkeys((1, 5), _VARINT)
)
"""Every field that a ModelProto has today, with its wire type: tells a model from other files."""

_BATCH_WIDE: Final = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)
"""Operators that take one scale over a whole tensor of activations; the latter two are the runtime's
own, in graphs that it has optimised."""
_OP_TYPE: Final = 4
_MAX_OP_BYTES: Final = 64
_NO_MODEL: Final = "is no ONNX file"
_TENSOR: Final = "TensorProto"
MESSAGES: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "ModelProto": {_GRAPH: "GraphProto", 25: "FunctionProto"},
        "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
        "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
        "NodeProto": {5: "AttributeProto"},
        "AttributeProto": {
            5: _TENSOR,
            6: "GraphProto",
            10: _TENSOR,
            11: "GraphProto",
            22: "SparseTensorProto",
            23: "SparseTensorProto",
        },
        "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    }
)
"""The fields on the way to a tensor; all others are skipped."""


_Field = tuple[int, int, int, int]
"""Number, wire type, and where the value lies: [from, to). A varint's value stands for `from`."""
_Named = tuple[str, int]
"""An external file, and how many bytes of it one tensor needs, counted from its start."""


@dataclass(frozen=True, slots=True)
class ExternalFiles:
    """What a graph says of files beside it.

    `locations` are their names as written in the graph, sorted, each once, and `sizes_bytes` what
    each must have at least; `fault` is a sentence on why the file is no whole ONNX file, or empty.
    """

    locations: tuple[str, ...] = ()
    fault: str = ""
    sizes_bytes: tuple[int, ...] = ()


class _Fault(Exception):
    """The walk cannot go on; `sentence` lacks the file's name."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _Overrun(_Fault):
    """A field runs over the end of its message at byte `at`; `number` 0: in the middle of a tag."""

    def __init__(self, at: int, number: int = 0) -> None:
        super().__init__(f"is damaged at byte {at}")
        self.number = number


def read_external(path: Path) -> ExternalFiles:
    """The external data files that an ONNX file names, or why it is none. Raises nothing."""
    try:
        with open_regular(path) as file:
            return read_external_from(file, printed(path.name))
    except (OSError, ValueError) as error:
        return ExternalFiles(fault=f"{printed(path.name)} cannot be read: {told(error)}")


def read_external_from(file: FileIO, name: str) -> ExternalFiles:
    """As `read_external`, of an open file that messages call `name`.

    Raises:
        OSError: reading failed.
    """
    reader = _Reader(file)
    try:
        sizes: dict[str, int] = {}
        for location, size_bytes in _model(reader):
            sizes[location] = max(size_bytes, sizes.get(location, 0))
        names = sorted(sizes)
        return ExternalFiles(tuple(names), sizes_bytes=tuple(sizes[name] for name in names))
    except _Fault as fault:
        return ExternalFiles(fault=f"{name} {fault.sentence}")


def batch_dependence(files: VersionFiles) -> str:
    """Why the answers of a version depend on what else is in a batch, and what helps; else empty.

    Raises nothing.
    """
    if files.onnx is None or not _BATCH_WIDE & op_types(files.onnx):
        return ""
    return (
        "its graph is dynamically quantised with one scale over a whole batch, so an answer depends on "
        "what else is in the batch; optimization.batch_invariant: true runs each text alone, and "
        "precision: int8 with the float export gives each token a scale of its own"
    )


def op_types(path: Path) -> frozenset[str]:
    """The kinds of operators in an ONNX file, at any depth; those before a fault if it has one."""
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError, _Fault), open_regular(path) as file:
        reader = _Reader(file)
        for kind in _op_types(reader, "ModelProto", 0, reader.size, 0):
            found.add(kind)  # what was found before a fault counts
    return frozenset(found)


class _Reader:
    """Numbers and bytes at places of a file, through one small window."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self._start, self._window = 0, b""
        self.size = os.fstat(file.fileno()).st_size

    def bytes_at(self, at: int, count: int) -> bytes:
        """`count` bytes, at most a window."""
        if not self._start <= at <= at + count <= self._start + len(self._window):
            self._fill(at)
        offset = at - self._start
        found = self._window[offset : offset + count]
        if len(found) < count:
            raise _Fault("was cut short while it was read")
        return found

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of up to 64 bits that lies before `end`, and where the next field begins."""
        value = shift = 0
        while at < end and shift < 70:
            offset = at - self._start
            if not 0 <= offset < len(self._window):
                self._fill(at)
                offset = 0
                if not self._window:
                    raise _Fault("was cut short while it was read")
            byte = self._window[offset]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise _Overrun(end) if at >= end else _damaged(at)

    def _fill(self, at: int) -> None:
        self.file.seek(at)
        self._start, self._window = at, self.file.read(_WINDOW_BYTES)


def _incomplete(sentence: str) -> _Fault:
    return _Fault(f"{sentence}: it is incomplete")


def _damaged(at: int) -> _Fault:
    return _Fault(f"is damaged at byte {at}")


def _fields(reader: _Reader, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message at [start, end)."""
    at = start
    while at < end:
        begin = at
        tag, at = reader.varint(at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in {_VARINT, _FIXED64, _LENGTH, _FIXED32}:
            raise _damaged(begin)
        if at == end:
            raise _Overrun(end, number)
        value = at
        if wire == _VARINT:
            value, at = reader.varint(at, end)
        elif wire == _LENGTH:
            length, value = reader.varint(at, end)
            at = value + length
        else:
            at += 8 if wire == _FIXED64 else 4
        if at > end:
            raise _Overrun(end, number)
        yield number, wire, value, at


def _model(reader: _Reader) -> Iterator[_Named]:
    """The external files of the whole file, which is one ModelProto."""
    if reader.size == 0:
        raise _Fault("is an empty file")
    if is_lfs_pointer(reader.file):
        raise _Fault("is only a Git LFS pointer; run `git lfs pull`")
    seen: set[int] = set()
    nested = MESSAGES["ModelProto"]
    fields = _fields(reader, 0, reader.size)
    while field := _next(fields, seen):
        number, wire, start, end = field
        if _MODEL_FIELDS.get(number, wire) != wire:
            raise _Fault(_NO_MODEL)
        seen.add(number)
        if number in nested:
            yield from _locations(reader, nested[number], start, end, 1)
    if _GRAPH not in seen:
        # Fields are written in the order of their numbers, so this one may be still to come.
        raise _Fault("has no graph: it is incomplete, or no ONNX file")
    if _OPSET_IMPORT not in seen:
        raise _incomplete("ends before its opset_import")


def _next(fields: Iterator[_Field], seen: set[int]) -> _Field | None:
    """The next field of the model; a fault here is one of the file as a whole."""
    try:
        return next(fields, None)
    except _Overrun as overrun:
        # A length that runs over the end: of a model cut short, or a few bytes of anything else.
        if overrun.number in _MODEL_FIELDS or seen & _MODEL_FIELDS.keys():
            raise _incomplete("ends in the middle of a field") from None
        raise _Fault(_NO_MODEL) from None
    except _Fault as fault:
        raise fault if seen & _MODEL_FIELDS.keys() else _Fault(_NO_MODEL) from None


def _locations(reader: _Reader, message: str, start: int, end: int, depth: int) -> Iterator[_Named]:
    if depth > _MAX_DEPTH:
        raise _Fault(f"holds messages nested over {_MAX_DEPTH} deep")
    if message == _TENSOR:
        yield from _tensor(reader, start, end)
        return
    nested = MESSAGES[message]
    for number, wire, inner_start, inner_end in _fields(reader, start, end):
        inner = nested.get(number)
        if inner is None:
            continue
        if wire != _LENGTH:
            raise _damaged(inner_end)
        yield from _locations(reader, inner, inner_start, inner_end, depth + 1)


def _op_types(reader: _Reader, message: str, start: int, end: int, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _Fault(f"holds messages nested over {_MAX_DEPTH} deep")
    nested = MESSAGES.get(message, {})
    for number, wire, value, value_end in _fields(reader, start, end):
        if wire != _LENGTH:
            continue
        if message == "NodeProto" and number == _OP_TYPE and value_end - value <= _MAX_OP_BYTES:
            yield reader.bytes_at(value, value_end - value).decode("utf-8", "replace")
        elif nested.get(number, _TENSOR) != _TENSOR:
            yield from _op_types(reader, nested[number], value, value_end, depth + 1)


def _tensor(reader: _Reader, start: int, end: int) -> Iterator[_Named]:
    external = False
    entries: dict[bytes, bytes] = {}
    for number, wire, value, value_end in _fields(reader, start, end):
        if number == 14 and wire == _VARINT:
            external = value == _EXTERNAL
        elif number == 13 and wire == _LENGTH:
            entry = {
                key: reader.bytes_at(at, min(until - at, _MAX_LOCATION_BYTES + 1))
                for key, kind, at, until in _fields(reader, value, value_end)
                if kind == _LENGTH
            }
            entries[entry.get(1, b"")] = entry.get(2, b"")
    if external and b"location" in entries:
        size = _number(entries.get(b"offset")) + _number(entries.get(b"length"))
        yield _name(entries[b"location"]), size


def _number(text: bytes | None) -> int:
    """An offset or length; what is no number is left for the runtime to tell of."""
    return int(text) if text and len(text) < 20 and text.isdigit() else 0


def _name(location: bytes) -> str:
    """An external file's name as text that can be shown and be a path."""
    try:
        name = location.decode()
    except UnicodeDecodeError:
        name = ""
    if (
        not name
        or any(each < " " or each == "\x7f" for each in name)
        or len(location) > _MAX_LOCATION_BYTES
    ):
        text = shown(location[:65].decode("utf-8", "backslashreplace"))
        raise _Fault(f"names an external data file that cannot be one: {text}")
    return name
