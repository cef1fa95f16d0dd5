"""Tensors of the Open Inference Protocol: what is taken, what is refused and in which words."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.errors import InvalidField
from nerve.frontend.v2.tensors import BYTES, DTYPES, InputTensor, OutputTensor


def framed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def tensor(shape: tuple[int, ...], *, datatype: str = BYTES, **content: object) -> InputTensor:
    return InputTensor("X", datatype, shape, **content)  # type: ignore[arg-type]


@given(st.lists(st.text()))
def test_texts_survive_both_ways(texts: list[str]) -> None:
    """Binary and as values, empty elements and NULs included."""
    elements = [text.encode() for text in texts]
    shape = (len(texts), 1)
    out = OutputTensor("Y", BYTES, shape, elements)
    assert tensor(shape, raw=out.raw()).texts() == texts
    assert tensor(shape, values=out.values()).texts() == texts
    assert tensor(shape, values=elements).texts() == texts  # as gRPC's contents have them


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_numbers_survive_both_ways(datatype: str) -> None:
    numbers = np.arange(6).reshape(2, 3).astype(DTYPES[datatype])
    out = OutputTensor("Y", datatype, (2, 3), numbers)
    back = tensor((2, 3), datatype=datatype, raw=out.raw()).array()
    assert back.dtype == numbers.dtype
    np.testing.assert_array_equal(back, numbers)
    again = tensor((2, 3), datatype=datatype, values=numbers.tolist()).array()
    np.testing.assert_array_equal(again, numbers)
    assert len(out.raw()) == numbers.nbytes == out.size


def test_binary_is_little_endian() -> None:
    """Whatever the array's own order is."""
    out = OutputTensor("Y", "INT32", (1,), np.array([1], dtype=">i4"))
    assert out.raw() == b"\x01\x00\x00\x00"


@pytest.mark.parametrize("values", [["a", "b"], [["a"], ["b"]]])
def test_values_may_be_nested(values: list[object]) -> None:
    assert tensor((2, 1), values=values).texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (tensor((2, 1), raw=framed(b"a")), "holds 2 elements, but 1 came"),
        (tensor((1, 1), raw=framed(b"a", b"b")), "holds 1 elements, but more came"),
        (tensor((1, 1), raw=b"\x01\x00"), "element 0 is cut off within its 4 bytes of length"),
        (tensor((1, 1), raw=framed(b"abc")[:-1]), "says that it has 3 bytes, but 2 are left"),
        (tensor((1, 1), raw=b"\xff\xff\xff\xffab"), "has 4294967295 bytes, but 2 are left"),
        (tensor((2, 1), raw=framed(b"a", b"b\xff")), "element 1 is not valid UTF-8 (its byte 1)"),
        (tensor((1, 1), values=[b"\xc3"]), "element 0 is not valid UTF-8 (its byte 0)"),
        (tensor((2, 1), values=["a", 1]), "expected strings, but element 1 is 1"),
        (tensor((1, 1), values=[[["a"]]]), "expected strings, but element 0 is a list"),
        (tensor((2, 1), values=[["a"], "b"]), "expected strings, but element 0 is a list"),
        (tensor((3, 1), values=["a"]), "shape [3,1] holds 3 elements, but 1 came"),
    ],
)
def test_wrong_texts_are_refused(given: InputTensor, fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        given.texts()
    assert str(caught.value).startswith("inputs.X: ")
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (tensor((2,), datatype="INT64", raw=b"1234567"), "takes 16 bytes, got 7"),
        (tensor((2,), datatype="INT64", raw=bytes(17)), "takes 16 bytes, got 17"),
        (tensor((2,), datatype="INT64", values=[1]), "holds 2 elements, but 1 came"),
        (tensor((1,), datatype="INT64", values=[1.5]), "whole numbers, but element 0 is 1.5"),
        (tensor((1,), datatype="INT64", values=[True]), "whole numbers, but element 0 is True"),
        (tensor((1,), datatype="BOOL", values=[1]), "booleans, but element 0 is 1"),
        (tensor((1,), datatype="FP32", values=["1"]), "numbers, but element 0 is a string"),
        (tensor((1,), datatype="INT8", values=[300]), "out of the range of INT8"),
        (tensor((1,), datatype="UINT64", values=[-1]), "out of the range of UINT64"),
    ],
)
def test_wrong_numbers_are_refused(given: InputTensor, fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        given.array()
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (tensor((1, 1), datatype="STRING"), "'STRING' is no datatype; there are BF16, BOOL"),
        (tensor((1, 1), datatype="FP32"), "expected datatype BYTES, got FP32"),
        (tensor((-1, 1)), "shape [-1,1] has a negative dimension"),
    ],
)
def test_what_it_says_of_itself_is_checked(given: InputTensor, fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        given.check(BYTES)
    assert fault in str(caught.value)


def test_a_shape_of_huge_numbers_is_just_wrong() -> None:
    """No overflow, no memory."""
    given = tensor((2**62, 2**62), datatype="INT64", raw=bytes(8))
    with pytest.raises(InvalidField, match="got 8"):
        given.array()
