"""POST …/infer: every way to get it wrong, and its status (contract kserve-v2, section 3)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from api.openinference_wire import INFER, LENGTH, blob_input, framed, said, send, text_input

if TYPE_CHECKING:
    from api.conftest import Client

MANY = 10**6


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        # no JSON of the right types
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'"a"', "expected a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"inputs":[{"data":' + b"[" * 100_000, "not valid JSON"),
        ({}, "inputs: this field is required"),
        ({"inputs": None}, "inputs: expected a list, got null"),
        ({"inputs": {}}, "inputs: expected a list"),
        ({"inputs": [1]}, "inputs[0]: expected an object, got a number"),
        ({"inputs": [], "outputs": None}, "outputs: expected a list"),
        ({"inputs": [text_input("a")], "outputs": ["ENTITIES"]}, "outputs[0]: expected an object"),
        ({"inputs": [text_input("a")], "outputs": [{}]}, "outputs[0].name: this field is required"),
        ({"inputs": [{"name": "TEXT", "datatype": "BYTES"}]}, "shape: this field is required, such as"),
        ({"inputs": [text_input("a", name=1)]}, "inputs[0].name: expected a string"),
        ({"inputs": [{"name": "TEXT"}]}, "inputs[0].datatype: this field is required"),
        ({"inputs": [text_input("a", shape=None)]}, "inputs[0].shape: expected a list"),
        ({"inputs": [text_input("a", shape=[1.0, 1])]}, "inputs[0].shape: expected a list"),
        ({"inputs": [text_input("a", shape=[True, 1])]}, "inputs[0].shape: expected a list"),
        ({"inputs": [text_input("a", shape=["1"])]}, "inputs[0].shape: expected a list"),
        ({"inputs": [text_input("a", data="a")]}, "inputs[0].data: expected a list"),
        ({"inputs": [text_input("a", parameters=[])]}, "inputs[0].parameters: expected an object"),
        ({"inputs": [text_input("a", data=[1])]}, "expected strings"),
        ({"inputs": [text_input("a", data=[None])]}, "expected strings"),
        ({"inputs": [text_input("a", data=[[["a"]]])]}, "expected strings"),
        ({"parameters": [], "inputs": []}, "parameters: expected an object"),
        ({"parameters": {"x": None}, "inputs": []}, "parameters.x: expected a string, a number"),
        ({"parameters": {"x": [1]}, "inputs": []}, "parameters.x: expected a string, a number"),
        ({"parameters": {"x": {}}, "inputs": []}, "parameters.x: expected a string, a number"),
        ({"parameters": {"triton_x": 1}, "inputs": []}, "parameters.triton_x: names with triton_"),
        ({"parameters": {"binary_data_output": 1}, "inputs": []}, "binary_data_output: expected"),
        ({"parameters": {"timeout": "1"}, "inputs": []}, "parameters.timeout: "),
        ({"parameters": {"timeout": -1}, "inputs": []}, "parameters.timeout: "),
        ({"parameters": {"timeout": 1.5}, "inputs": []}, "parameters.timeout: "),
        ({"parameters": {"priority": 11}, "inputs": []}, "parameters.priority: "),
        ({"parameters": {"nope": 1}, "inputs": [text_input("a")]}, "'nope'; there are"),
        # tensors that do not fit
        ({"inputs": []}, "input TEXT is missing"),
        ({"inputs": [text_input("a"), text_input("a")]}, "'TEXT' is there more than once"),
        ({"inputs": [text_input("a", name="TXT")]}, "there is no input 'TXT'"),
        ({"inputs": [text_input("a"), text_input("a", name="b")]}, "there is no input 'b'"),
        ({"inputs": [text_input("a", datatype="STRING")]}, "'STRING' is no datatype"),
        ({"inputs": [text_input("a", datatype="FP16")]}, "expected datatype BYTES, got FP16"),
        ({"inputs": [text_input("a", datatype="INT64", data=[1])]}, "expected datatype BYTES"),
        ({"inputs": [text_input("a", shape=[])]}, "expected shape [texts,1]"),
        ({"inputs": [text_input("a", shape=[1, 2])]}, "expected shape [texts,1]"),
        ({"inputs": [text_input("a", shape=[1, 1, 1])]}, "expected shape [texts,1]"),
        ({"inputs": [text_input("a", shape=[1] * MANY)]}, "shape: expected a list of a few"),
        ({"inputs": [text_input("a", shape=[-1, 1])]}, "negative dimension"),
        ({"inputs": [text_input("a", shape=[2**63, 1])]}, "holds 9223372036854775808 elements, but 1"),
        ({"inputs": [text_input("a", shape=[2**64, 1])]}, "inputs[0].shape: expected a list"),
        ({"inputs": [text_input("a", shape=[0, 1], data=[])]}, "a batch of 0"),
        ({"inputs": [text_input("a", shape=[10**6])]}, "holds 1000000 elements, but 1 came"),
        ({"inputs": [text_input("a", shape=[2, 1])]}, "holds 2 elements, but 1 came"),
        ({"inputs": [text_input("a", "b", shape=[1, 1])]}, "holds 1 elements, but 2 came"),
        ({"inputs": [text_input("")]}, "none may be an empty string"),
        # sources of data
        ({"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES"}]}, "got neither"),
        ({"inputs": [text_input("a", parameters={"binary_data_size": 5})]}, "got both"),
        ({"inputs": [blob_input(5, [1, 1])]}, "5 bytes, but 0 are left"),
        ({"inputs": [blob_input(-5, [1, 1])]}, "binary_data_size: expected a number of bytes"),
        ({"inputs": [blob_input(5, [1], parameters={"binary_data_size": "5"})]}, "number of bytes"),
        ({"inputs": [blob_input(5, [1], parameters={"binary_data_size": True})]}, "number of byt"),
        ({"inputs": [blob_input(2**62, [1, 1])]}, "4611686018427387904 bytes, but 0 are left"),
        # outputs
        ({"inputs": [text_input("a")], "outputs": [{"name": "X"}]}, "there is no output 'X'"),
        ({"inputs": [text_input("a")], "outputs": [{"name": "LABELS"}] * 2}, "more than once"),
        (
            {"inputs": [text_input("a")],
             "outputs": [{"name": "LABELS", "parameters": {"binary_data": 1}}]},
            "outputs[0].parameters.binary_data: expected a boolean",
        ),
    ],
)  # fmt: skip
async def test_bad_requests(http: Client, value: object, sentence: str) -> None:
    """400, with the id and what is wrong."""
    if isinstance(value, bytes):
        answer = await http.send("POST", INFER, data=value)
        assert said(answer, 400).startswith("[request id: <id_unknown>] ")
    else:
        assert isinstance(value, Mapping)
        answer = await http.post(INFER, {"id": "a7", **value})
        assert said(answer, 400).startswith("[request id: a7] ")
    assert sentence in said(answer, 400)


@pytest.mark.parametrize("wrong", [1, None, ["a"], {}, True])
async def test_ids_are_strings(http: Client, wrong: object) -> None:
    answer = await http.post(INFER, {"id": wrong, "inputs": [text_input("a")]})
    assert said(answer, 400).startswith("[request id: <id_unknown>] id: expected a string, got ")


@pytest.mark.parametrize(
    ("size", "shape", "blob", "sentence"),
    [
        (6, [1, 1], framed("a"), "6 bytes, but 5 are left"),
        (5, [1, 1], framed("a") + b"x", "they tell of 5 bytes behind the JSON, but there are 6"),
        (4, [1, 1], framed("a"), "they tell of 4 bytes"),
        (5, [2, 1], framed("a"), "holds 2 elements, but 1 came"),
        (10, [1, 1], framed("a", "b"), "holds 1 elements, but more came"),
        (5, [1, 1], struct.pack("<I", 2) + b"a", "says that it has 2 bytes, but 1 are left"),
        (5, [1, 1], struct.pack("<I", 2**32 - 1) + b"a", "says that it has 4294967295 bytes"),
        (3, [1, 1], b"\0\0\0", "cut off within its 4 bytes of length"),
        (5, [1, 1], framed(b"\xff"), "element 0 is not valid UTF-8"),
        (4, [1, 1], framed(""), "none may be an empty string"),
    ],
)
async def test_bad_blobs(
    http: Client, size: int, shape: list[int], blob: bytes, sentence: str
) -> None:
    """400: the content of a tensor is not what the JSON tells."""
    answer = await send(http, {"id": "a7", "inputs": [blob_input(size, shape)]}, blob)
    assert sentence in said(answer, 400)
    assert said(answer, 400).startswith("[request id: a7] ")


@pytest.mark.parametrize(
    "length", ["-1", "x", "1.0", "", "1000", "9" * 10, "9" * 5000, "0x10", "1 2", "+5"]
)
async def test_bad_lengths(http: Client, length: str) -> None:
    """400: a header that is no number, or more than there is."""
    data = json.dumps({"inputs": [text_input("a")]}).encode()
    answer = await http.send("POST", INFER, data=data, headers={LENGTH: length})
    assert f"header {LENGTH}: " in said(answer, 400)


async def test_lengths_that_cut_the_json(http: Client) -> None:
    data = json.dumps({"inputs": [text_input("a")]}).encode()
    answer = await http.send("POST", INFER, data=data, headers={LENGTH: str(len(data) - 1)})
    assert "not valid JSON" in said(answer, 400)


async def test_what_is_not_supported(http: Client) -> None:
    """501: shared memory and classification."""
    shared = {"shared_memory_region": "a", "shared_memory_byte_size": 8}
    value: dict[str, Any] = {"inputs": [blob_input(0, [1, 1], parameters=shared)]}
    assert "not supported" in said(await http.post(INFER, value), 501)
    for parameters in (shared, {"classification": 2}):
        output = {"name": "ENTITIES", "parameters": parameters}
        value = {"inputs": [text_input("a")], "outputs": [output]}
        assert "not supported" in said(await http.post(INFER, value), 501)


async def test_models_that_do_not_answer(http: Client) -> None:
    """Unknown ones, those that are not ready, and those that fail."""
    for name, text, status in (
        ("nope", "a", 404),
        ("nope.raw", "a", 404),
        ("multi/versions/3", "a", 404),
        ("multi/versions/0", "a", 400),
        ("broken", "a", 503),
        ("rule", "early", 500),
        ("rule", "night", 500),
        ("picky", "unknown words", 500),
    ):
        value = {"id": "a7", "inputs": [text_input(text)]}
        answer = await http.post(f"/v2/models/{name}/infer", value)
        assert said(answer, status).startswith("[request id: a7] "), name


async def test_overload_and_deadlines(http: Client) -> None:
    """503 for both, with Retry-After where the queue is full."""
    path, value = "/v2/models/patient/infer", {"id": "a7", "inputs": [text_input("a")]}
    answer = await http.post(path, value, headers={"request-timeout-ms": "1"})
    assert said(answer, 503).startswith("[request id: a7] ")
    assert "Retry-After" not in answer.headers
    said(await http.post(path, value | {"parameters": {"timeout": 1000}}), 503)
    async with http.waiting(http.predict_tokens(["people"], model="patient")):
        await http.queued("patient", 1)
        answer = await http.post(path, value)
        assert "waiting" in said(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
    await http.queued("patient", 0)


@pytest.mark.parametrize("name", ["request-timeout-ms", "request-deadline-ms", "x-nerve-priority"])
async def test_headers_of_every_dialect(http: Client, name: str) -> None:
    """Are read here, too."""
    value = {"id": "a7", "inputs": [text_input("people")]}
    answer = await http.post(INFER, value, headers={name: "soon"})
    assert f"header {name}: " in said(answer, 400)
    answer = await http.post(INFER, value, headers={name: "9"} if "nerve" in name else {name: "0"})
    assert answer.status == 200
