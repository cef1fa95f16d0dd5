"""Tensors of the Open Inference Protocol: datatypes, shapes, binary layout, values (kserve-v2, 3 and 7).

Pure. An input is decoded only after the view has checked its datatype and shape, so that nobody can
have the server unpack a million elements just to be refused.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nerve.errors import InvalidField, kind_of, shown
from nerve.offload import INLINE_BYTES

BYTES: Final = "BYTES"
MAX_RANK: Final = 8
INLINE_VALUES: Final = 256
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
        "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
        "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip
"""Of numbers, little-endian; BF16 has no numpy type, and no input here takes it."""
DATATYPES: Final = frozenset({*DTYPES, "BF16", BYTES})
_LENGTH: Final = struct.Struct("<I")
_KINDS: Final[dict[str, tuple[frozenset[type], str]]] = {
    "b": (frozenset({bool}), "booleans"),
    "u": (frozenset({int}), "whole numbers"),
    "i": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float}), "numbers"),
}
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input as it came: its content is either `raw`, in the binary layout, or `values`, flat or
    nested by dimension (strings or bytes for BYTES)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview | None = None
    values: Sequence[Any] | None = None

    @property
    def place(self) -> str:
        """What errors call it."""
        return f"inputs.{self.name:.64}"

    @property
    def size(self) -> int:
        """How many elements its shape tells."""
        return math.prod(self.shape)

    @property
    def small(self) -> bool:
        """Whether its content is decoded as quickly as a thread is asked to."""
        if self.raw is not None:
            return len(self.raw) <= INLINE_BYTES
        values = self.values or ()
        if len(values) > INLINE_VALUES or self.size > INLINE_VALUES:
            return False
        return sum(len(each) for each in values if isinstance(each, bytes)) <= INLINE_BYTES

    def check(self, datatype: str) -> None:
        """See that it has this datatype, and a shape that can be.

        Raises:
            InvalidField.
        """
        if self.datatype not in DATATYPES:
            known = ", ".join(sorted(DATATYPES))
            raise InvalidField(
                self.place, f"{shown(self.datatype, 40)} is no datatype; there are {known}"
            )
        if self.datatype != datatype:
            raise InvalidField(self.place, f"expected datatype {datatype}, got {self.datatype}")
        if len(self.shape) > MAX_RANK:
            fault = f"shape {shown_shape(self.shape)} has {len(self.shape)} dimensions"
            raise InvalidField(self.place, f"{fault}; no input has more than two")
        if any(length < 0 for length in self.shape):
            raise InvalidField(
                self.place,
                f"shape {shown_shape(self.shape)} has a negative dimension; name real sizes",
            )

    def texts(self) -> list[str]:
        """The elements of a BYTES tensor.

        Raises:
            InvalidField: broken framing, another number than the shape tells, or no UTF-8.
        """
        elements = self._from_frames() if self.raw is not None else self._flat(str, bytes)
        self._check_count(len(elements))
        texts = []
        for number, element in enumerate(elements):
            try:
                texts.append(element if isinstance(element, str) else str(element, "utf-8"))
            except UnicodeDecodeError as error:
                fault = f"element {number} is not valid UTF-8 (its byte {error.start})"
                raise InvalidField(self.place, fault) from error
        return texts

    def array(self) -> Array:
        """The numbers, in the tensor's shape.

        Raises:
            InvalidField: another number or type of values than shape and datatype tell.
        """
        dtype = DTYPES[self.datatype]
        if self.raw is not None:
            expected = self.size * dtype.itemsize
            if len(self.raw) != expected:
                raise InvalidField(
                    self.place,
                    f"shape {shown_shape(self.shape)} of {self.datatype} takes {expected} bytes, "
                    f"got {len(self.raw)}",
                )
            return np.frombuffer(self.raw, dtype).reshape(self.shape)
        kinds, name = _KINDS[dtype.kind]
        values = self._flat(*kinds, wanted=name)
        self._check_count(len(values))
        try:
            with np.errstate(over="ignore"):
                return np.array(values, dtype).reshape(self.shape)
        except OverflowError:
            fault = f"a value is out of the range of {self.datatype}"
            raise InvalidField(self.place, fault) from None

    def _check_at_most(self, count: int) -> None:
        if count > self.size:
            self._check_count(count)

    def _check_count(self, count: int) -> None:
        if count != self.size:
            fault = f"shape {shown_shape(self.shape)} holds {self.size} elements, but {count} came"
            raise InvalidField(self.place, fault)

    def _flat(self, *kinds: type, wanted: str = "strings") -> list[Any]:
        """The values, without their nesting, all of one of `kinds`."""
        values: Sequence[Any] = self.values or ()
        for _ in self.shape[1:]:
            # Before each look at all of them: they may be millions, with a shape of one.
            if not 0 < len(values) <= self.size or not isinstance(values[0], list):
                break
            if not all(isinstance(each, list) for each in values):
                break
            self._check_at_most(sum(map(len, values)))
            values = list(itertools.chain.from_iterable(values))
        self._check_at_most(len(values))
        wrong = set(map(type, values)) - set(kinds)
        if wrong:
            number = next(at for at, each in enumerate(values) if type(each) in wrong)
            value = values[number]
            got = repr(value) if isinstance(value, int | float) else kind_of(value)
            raise InvalidField(self.place, f"expected {wanted}, but element {number} is {got}")
        return list(values)

    def _from_frames(self) -> list[memoryview]:
        """The elements: of each a length (uint32, little-endian), then its bytes."""
        elements = list(itertools.islice(self._frames(), self.size + 1))
        if len(elements) > self.size:
            fault = f"shape {shown_shape(self.shape)} holds {self.size} elements, but more came"
            raise InvalidField(self.place, fault)
        return elements

    def _frames(self) -> Iterator[memoryview]:
        raw = memoryview(self.raw or b"")
        at = number = 0
        while at < len(raw):
            begin = at + _LENGTH.size
            if begin > len(raw):
                fault = f"element {number} is cut off within its 4 bytes of length"
                raise InvalidField(self.place, fault)
            (length,) = _LENGTH.unpack_from(raw, at)
            at = begin + length
            if at > len(raw):
                left = len(raw) - begin
                fault = f"element {number} says that it has {length} bytes, but {left} are left"
                raise InvalidField(self.place, fault)
            yield raw[begin:at]
            number += 1


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output: `data` is a list of encoded elements for BYTES, else an array of its shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[bytes] | Array

    @property
    def size(self) -> int:
        """In bytes, about."""
        return sum(map(len, self.data)) if isinstance(self.data, list) else self.data.nbytes

    def raw(self) -> bytes:
        """In the binary layout."""
        if isinstance(self.data, list):
            return b"".join(part for each in self.data for part in (_LENGTH.pack(len(each)), each))
        return self.data.astype(DTYPES[self.datatype], order="C", copy=False).tobytes()

    def values(self) -> list[str] | Array:
        """Flat, as JSON has it; BYTES as strings. All that this server puts out is UTF-8."""
        if isinstance(self.data, list):
            return [each.decode() for each in self.data]
        return self.data.reshape(-1)


def shown_shape(shape: Sequence[int]) -> str:
    """A shape as errors write it, whatever its length."""
    return f"[{','.join(map(str, shape[:8]))}{',…' if len(shape) > 8 else ''}]"
