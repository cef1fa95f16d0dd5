"""The pure parts of the Open Inference Protocol over HTTP: JSON and binary layout, content codings."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.errors import BodyTooLarge, InvalidField, MalformedBody, Unsupported
from nerve.frontend.http.body import inflate
from nerve.frontend.http.openinference.codec import (
    Form,
    json_length,
    raw_request,
    read_document,
    read_request,
    write_response,
)
from nerve.frontend.http.openinference.encodings import choose, compress
from nerve.frontend.http.openinference.generate import as_event, read_generate, write_generated
from nerve.frontend.v2.infer import InferResponse
from nerve.frontend.v2.tensors import InputTensor, OutputTensor
from nerve.frontend.v2.views import View


def tensor(name: str, *, size: int | None = None, data: object = None) -> dict[str, Any]:
    """An input of a request."""
    said = {"data": data} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "datatype": "BYTES", "shape": [1, 1]} | said


def split(value: object, *blobs: bytes) -> tuple[bytes, int]:
    head = json.dumps(value).encode()
    return head + b"".join(blobs), len(head)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=9)), max_size=5))
def test_blobs_come_in_the_order_of_the_inputs(contents: list[bytes | None]) -> None:
    """Inputs with and without are mixed; each gets its own bytes."""
    inputs = [
        tensor(f"i{at}", data=["x"]) if each is None else tensor(f"i{at}", size=len(each))
        for at, each in enumerate(contents)
    ]
    blobs = [each for each in contents if each is not None]
    document = read_document(*split({"inputs": inputs}, *blobs))
    request, form = read_request(document, "m", "")
    assert [each.name for each in request.inputs] == [each["name"] for each in inputs]
    assert [None if each.raw is None else bytes(each.raw) for each in request.inputs] == contents
    assert [each.values for each in request.inputs] == [
        ["x"] if each is None else None for each in contents
    ]
    assert not form.binary("any")


def test_a_whole_request() -> None:
    value = {
        "id": "7",
        "parameters": {"threshold": 0.5, "priority": 2, "aggregation": "max", "raw_scores": True},
        "inputs": [tensor("TEXT", data=["a"])],
        "outputs": [
            {"name": "A", "parameters": {"binary_data": False}},
            {"name": "B", "parameters": {}},
        ],
    }
    value["parameters"] = value["parameters"] | {"binary_data_output": True}  # type: ignore[operator]
    request, form = read_request(read_document(*split(value)), "m", "3")
    assert (request.model, request.version, request.id) == ("m", "3", "7")
    assert request.parameters == {
        "threshold": 0.5, "priority": 2, "aggregation": "max", "raw_scores": True,
    }  # fmt: skip
    assert request.inputs == [InputTensor("TEXT", "BYTES", (1, 1), values=["a"])]
    assert request.outputs == ["A", "B"]
    assert (form.binary("A"), form.binary("B")) == (False, True)


@pytest.mark.parametrize(
    ("header", "length"), [(None, 7), ("0", 0), ("7", 7), (" 3 ", 3), ("007", 7)]
)
def test_json_length(header: str | None, length: int) -> None:
    assert json_length(header, b"7 bytes") == length


@pytest.mark.parametrize("header", ["", "8", "-1", "x", "²", "٣", "1_0", "9" * 5000])
def test_bad_json_length(header: str) -> None:
    with pytest.raises(InvalidField, match="Inference-Header-Content-Length"):
        json_length(header, b"7 bytes")


NAMES = (
    "id", "inputs", "outputs", "parameters", "name", "data", "shape", "datatype",
    "binary_data_size",
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from([None, True, -1, 0, 3, 0.5, 2**63, "", "a", "INT64"]),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(NAMES), each, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.binary(max_size=8))
def test_any_json_is_read_or_refused(value: object, blob: bytes) -> None:
    """Nothing but errors that tell the client what is wrong."""
    with suppress(InvalidField, MalformedBody, Unsupported):
        request, _ = read_request(read_document(*split(value, blob)), "m", "")
        assert all(isinstance(each, InputTensor) for each in request.inputs)


def test_raw_requests() -> None:
    request, form = raw_request(b"a text", "m", "", View.TEXT)
    assert [each.texts() for each in request.inputs] == [["a text"]]
    assert form.binary("ENTITIES")
    with pytest.raises(InvalidField, match="several inputs"):
        raw_request(b"a text", "m", "", View.RAW)


LOGITS = np.array([[[0.1, -2.5]]], dtype=np.float32)


def response(request_id: str = "") -> InferResponse:
    return InferResponse(
        "m",
        "3",
        request_id,
        [
            OutputTensor("ENTITIES", "BYTES", (2, 1), ["[ö]".encode(), b""]),
            OutputTensor("logits", "FP32", (1, 1, 2), LOGITS),
        ],
        0,
    )


def form_of(**named: bool) -> Form:
    outputs = [{"name": name, "parameters": {"binary_data": each}} for name, each in named.items()]
    value = {"inputs": [], "outputs": outputs}
    return read_request(read_document(*split(value)), "m", "")[1]


def test_answers_as_json() -> None:
    body, length = write_response(response("7"), form_of())
    assert length is None
    assert json.loads(body) == {
        "id": "7",
        "model_name": "m",
        "model_version": "3",
        "outputs": [
            {"name": "ENTITIES", "datatype": "BYTES", "shape": [2, 1], "data": ["[ö]", ""]},
            {"name": "logits", "datatype": "FP32", "shape": [1, 1, 2], "data": [0.1, -2.5]},
        ],
    }


def test_answers_in_binary() -> None:
    """Blobs in the order of the outputs, no padding."""
    body, length = write_response(response(), form_of(ENTITIES=True, logits=True))
    assert length is not None
    value = json.loads(body[:length])
    assert "id" not in value
    assert [each["parameters"] for each in value["outputs"]] == [
        {"binary_data_size": 12}, {"binary_data_size": 8},
    ]  # fmt: skip
    assert body[length:] == b"\4\0\0\0[\xc3\xb6]\0\0\0\0" + LOGITS.tobytes()
    body, length = write_response(response(), form_of(ENTITIES=False, logits=True))
    assert body[length:] == LOGITS.tobytes()


def test_generate() -> None:
    """Scalars and lists of both views."""
    document = read_document(*split({"id": "7", "TEXT": "a", "x": 1, "parameters": {"y": "z"}}))
    request = read_generate(document, "m", "3", View.TEXT)
    assert request.inputs == [InputTensor("TEXT", "BYTES", (1, 1), values=["a"])]
    assert request.parameters == {"x": 1, "y": "z"}
    assert (request.id, request.version, request.outputs) == ("7", "3", ())
    document = read_document(*split({"text_input": ["a", "b"]}))
    (text,) = read_generate(document, "m", "", View.TEXT).inputs
    assert (text.name, text.shape) == ("TEXT", (2,))
    document = read_document(*split({"input_ids": [1, 2], "attention_mask": 1}))
    ids, mask = read_generate(document, "m", "", View.RAW).inputs
    assert (ids.shape, mask.shape) == ((1, 2), (1, 1))
    assert (ids.datatype, mask.datatype) == ("INT64", "INT64")


def test_generated() -> None:
    """A value where one text was sent alone, else a list."""
    alone = OutputTensor("ENTITIES", "BYTES", (1, 1), [b"[]"])
    several = OutputTensor("LABELS", "BYTES", (1,), [b"[]"])
    body = write_generated(InferResponse("m", "3", "7", [alone, several], 0))
    assert json.loads(body) == {
        "id": "7", "model_name": "m", "model_version": "3", "ENTITIES": "[]", "LABELS": ["[]"],
    }  # fmt: skip
    assert as_event(b"{}") == b"data: {}\n\n"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        (" gzip ; q=0.3 , deflate ; q=0.4 ", "deflate"),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=2, deflate;q=0.1", "deflate"),
        ("gzip;q=nan, deflate;q=inf", "identity"),
        ("gzip;q=x", "identity"),
        ("gzip;x=1;q=0.5, identity;q=0.4", "gzip"),
        ("identity, gzip", "identity"),
        ("br;q=1, zstd, x-gzip, *", "identity"),
        ("br;q=1, deflate;q=0.1", "deflate"),
        (",;,=;q", "identity"),
    ],
)
def test_choice_of_a_coding(accepted: str | None, coding: str) -> None:
    assert choose(accepted) == coding


@given(st.text(max_size=40))
def test_any_header_is_read(accepted: str) -> None:
    assert choose(accepted) in {"gzip", "deflate", "identity"}


@given(st.binary(max_size=2000))
def test_compressing(body: bytes) -> None:
    """Others read what we write, and we do."""
    assert gzip.decompress(compress(body, "gzip")) == body
    assert zlib.decompress(compress(body, "deflate")) == body
    for coding in ("gzip", "deflate"):
        assert inflate(compress(body, coding), coding, limit_bytes=2000) == body


def test_inflating_within_limits() -> None:
    packed = compress(b"a" * 1000, "gzip")
    assert len(inflate(packed, "gzip", limit_bytes=1000)) == 1000
    with pytest.raises(BodyTooLarge):
        inflate(packed, "gzip", limit_bytes=999)
    for broken in (packed[:-1], packed + b"x", b"", b"no gzip", packed[:-8] + b"\0" * 8):
        with pytest.raises(MalformedBody):
            inflate(broken, "gzip", limit_bytes=1000)
    with pytest.raises(MalformedBody):
        inflate(packed, "deflate", limit_bytes=1000)
