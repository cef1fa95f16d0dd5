"""Mutations of bytes, whatever they mean, and of protobuf's wire format, which lies afterwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
"""Wire types of protobuf; 6 and 7 are none."""
NUMBERS: Final = (0, 1, 2, 5, 127, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
STRINGS: Final = (
    b"",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\x00",
    b"a\x00b",
    "\U0001f9ec".encode() * 40,
    b"x" * 40_000,
)
FIELD_NUMBERS: Final = (0, 1, 2, 3, 4, 5, 7, 15, 16, 100, 19_000, 2**29 - 1, 2**29)


def bytewise(rng: Random, body: bytes, others: Sequence[bytes]) -> bytes:
    """Cut off, flip, insert, remove, repeat, or splice with another body."""
    spoilt = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randint(0, len(spoilt))
        end = min(len(spoilt), at + rng.choice((1, 1, 2, 4, 40)))
        match rng.randrange(7):
            case 0:
                del spoilt[at:]
            case 1 if spoilt:
                spoilt[min(at, len(spoilt) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                spoilt[at:at] = rng.randbytes(rng.choice((1, 2, 8, 300)))
            case 3:
                del spoilt[at:end]
            case 4:
                spoilt[at:at] = bytes(spoilt[at:end]) * rng.choice((1, 2, 100))
            case 5:
                spoilt[at:end] = rng.choice((b"\x00", b"\xff", b"\x80", b'"', b"{", b"]")) * (
                    end - at
                )
            case _:
                other = rng.choice(others)
                spoilt[at:] = other[rng.randint(0, len(other)) :]
    return bytes(spoilt)


class Field(NamedTuple):
    """A field as it is on the wire; `length` is what is told of it, None the truth."""

    number: int
    kind: int
    value: int | bytes
    length: int | None = None


def varint(value: int, *, extra: int = 0) -> bytes:
    """A number; `extra` bytes longer than it need be."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out += bytes([value | 0x80]) + b"\x80" * (extra - 1) + b"\x00" if extra else bytes([value])
    return bytes(out)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not body[at - 1] & 0x80:
            return value, at


def fields_of(body: bytes) -> list[Field] | None:
    """The fields of a message; None if it is none."""
    fields, at = [], 0
    try:
        while at < len(body):
            tag, at = _read_varint(body, at)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = _read_varint(body, at)
                fields.append(Field(number, kind, value))
                continue
            size = {FIXED64: 8, FIXED32: 4}.get(kind)
            if kind == BYTES:
                size, at = _read_varint(body, at)
            if size is None or number == 0 or at + size > len(body):
                return None
            fields.append(Field(number, kind, body[at : at + size]))
            at += size
    except IndexError:
        return None
    return fields


def written(fields: Sequence[Field], *, extra: int = 0) -> bytes:
    """Bytes of fields, true or not."""
    out = []
    for field in fields:
        out.append(varint(field.number << 3 | field.kind, extra=extra))
        if isinstance(field.value, int):
            out.append(varint(field.value, extra=extra))
            continue
        if field.kind == BYTES:
            length = len(field.value) if field.length is None else field.length
            out.append(varint(length, extra=extra))
        out.append(field.value)
    return b"".join(out)


def _evil(rng: Random, field: Field) -> Field:
    if isinstance(field.value, int):
        return field._replace(value=rng.choice(NUMBERS))
    if field.kind == BYTES:
        return field._replace(value=rng.choice(STRINGS))
    return field._replace(
        value=rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff" * 4))[
            : len(field.value)
        ]
    )


def _groups(rng: Random) -> Field:
    """Groups in groups, as deep as no parser likes; sometimes not ended."""
    depth = rng.choice((1, 90, 101, 5000))
    end = varint(99 << 3 | END_GROUP) * rng.choice((depth, depth - 1))
    return Field(99, GROUP, varint(99 << 3 | GROUP) * (depth - 1) + end)


def wirewise(rng: Random, body: bytes, depth: int = 0) -> bytes:
    """Spoil one to three fields of a message, or of a message in it."""
    fields = fields_of(body)
    if not fields:
        return written([Field(rng.choice(FIELD_NUMBERS), BYTES, rng.choice(STRINGS))]) + body
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(fields))
        field = fields[at]
        if (
            depth < 4
            and isinstance(field.value, bytes)
            and field.kind == BYTES
            and rng.random() < 0.5
        ):
            fields[at] = field._replace(value=wirewise(rng, field.value, depth + 1))
            continue
        match rng.randrange(9):
            case 0:
                fields[at] = field._replace(number=rng.choice(FIELD_NUMBERS))
            case 1:
                fields[at] = field._replace(kind=rng.randrange(8))
            case 2 if field.kind == BYTES and isinstance(field.value, bytes):
                lie = rng.choice(
                    (0, 1, len(field.value) + 1, max(0, len(field.value) - 1), *NUMBERS)
                )
                fields[at] = field._replace(length=lie)
            case 3:
                del fields[at]
            case 4:
                small = isinstance(field.value, int) or len(field.value) < 300
                fields += [field] * rng.choice((1, 2, 300 if small else 5))
            case 5:
                fields.insert(at, _groups(rng))
            case 6:
                rng.shuffle(fields)
            case _:
                fields[at] = _evil(rng, field)
        if not fields:
            break
    return written(fields, extra=rng.choice((0,) * 20 + (1, 3, 12)))
