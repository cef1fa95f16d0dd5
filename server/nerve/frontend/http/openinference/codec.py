"""The JSON and binary layout of infer and generate (kserve-v2, section 3). Pure; knows no aiohttp.

Checks are written by hand: this is the hot path, and a tensor's content is not looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from nerve.errors import InvalidField, Unsupported, kind_of
from nerve.frontend.http.body import load_json
from nerve.frontend.v2.infer import InferRequest, InferResponse, Scalar, check_few
from nerve.frontend.v2.tensors import BYTES, MAX_RANK, InputTensor, OutputTensor
from nerve.frontend.v2.views import TEXT, View

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
"""Bytes of JSON before the content of tensors; 0 makes the body the only input's content."""
RESERVED: Final = "triton_"
_SCALARS: Final = frozenset({bool, int, float, str})
_DIGITS: Final = 10
"""Of a length; no body has more."""


class Document(NamedTuple):
    """A request's JSON, and the bytes that follow it."""

    value: dict[str, Any]
    blobs: memoryview
    id: str


@dataclass(frozen=True, slots=True)
class Form:
    """Which outputs the client wants in the binary layout: those named, else `default`."""

    default: bool
    named: Mapping[str, bool]

    def binary(self, name: str) -> bool:
        """Whether this one."""
        return self.named.get(name, self.default)


def json_length(header: str | None, body: bytes) -> int:
    """Bytes of JSON at the begin of a body, by its header; without one all of it.

    Raises:
        InvalidField: the header is no number, or more than the body has.
    """
    if header is None:
        return len(body)
    text = header.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise InvalidField(f"header {LENGTH_HEADER}", f"expected bytes of JSON, got {header!r:.40}")
    length = int(text)
    if length > len(body):
        fault = f"{length} bytes of JSON, but the body has {len(body)}"
        raise InvalidField(f"header {LENGTH_HEADER}", fault)
    return length


def read_document(body: bytes, length: int) -> Document:
    """Split a body behind `length` bytes of JSON, and parse these.

    Raises:
        MalformedBody, InvalidField.
    """
    value = load_json(body if length == len(body) else body[:length])
    if not isinstance(value, dict):
        raise InvalidField("", f"expected a JSON object, got {kind_of(value)}")
    request_id = value.get("id", "")
    if not isinstance(request_id, str):
        raise _wrong("id", "a string", request_id)
    return Document(value, memoryview(body)[length:], request_id)


def read_request(document: Document, model: str, version: str) -> tuple[InferRequest, Form]:
    """What a document asks for; the content of tensors is still to be decoded.

    Args:
        document: see `read_document`; what follows the JSON must be the tensors' content, no more.
        model, version: of the path; an empty version leaves it to the server.
    Raises:
        InvalidField; Unsupported: shared memory, or classification.
    """
    value = document.value
    parameters = read_parameters(value.get("parameters", {}))
    default = parameters.pop("binary_data_output", False)
    if not isinstance(default, bool):
        raise _wrong("parameters.binary_data_output", "a boolean", default)
    if "inputs" not in value:
        raise InvalidField("inputs", "this field is required")
    inputs = _read_inputs(_few("inputs", value["inputs"]), document.blobs)
    named = _read_outputs(_few("outputs", value.get("outputs", [])))
    form = Form(default, {name: binary for name, binary in named if binary is not None})
    names = [name for name, _ in named]
    return InferRequest(model, version, document.id, parameters, inputs, names), form


def read_parameters(value: object) -> dict[str, Scalar]:
    """Request parameters.

    Raises:
        InvalidField: no object, no scalar in it, or a reserved name.
    """
    parameters = _object("parameters", value)
    check_few("parameters", len(parameters))
    for name, each in parameters.items():
        if type(each) not in _SCALARS:
            raise _wrong(
                f"parameters.{name:.64}",
                "a string, a number or a boolean (lists are strings with commas)",
                each,
            )
        if name.startswith(RESERVED):
            raise InvalidField(f"parameters.{name:.64}", f"names with {RESERVED} are reserved")
    return parameters


def raw_request(body: bytes, model: str, version: str, view: View) -> tuple[InferRequest, Form]:
    """The request whose whole body is the content of the model's only input: one text.

    Raises:
        InvalidField: the model has several inputs.
    """
    if view is not View.TEXT:
        fault = "0 makes the body the only input's content, but this model has several inputs"
        raise InvalidField(f"header {LENGTH_HEADER}", fault)
    text = InputTensor(TEXT, BYTES, (1, 1), values=[body])
    return InferRequest(model, version, "", {}, [text]), Form(default=True, named={})


def write_response(response: InferResponse, form: Form) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where content follows them."""
    blobs: list[bytes] = []
    outputs = [_written(each, blobs, binary=form.binary(each.name)) for each in response.outputs]
    answer = orjson.dumps(begin(response) | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(form.binary(each.name) for each in response.outputs):
        return answer, None
    return b"".join((answer, *blobs)), len(answer)


def begin(response: InferResponse) -> dict[str, object]:
    """What every answer begins with."""
    answer: dict[str, object] = {"id": response.id} if response.id else {}
    return answer | {"model_name": response.model, "model_version": response.version}


def _written(output: OutputTensor, blobs: list[bytes], *, binary: bool) -> dict[str, object]:
    tensor: dict[str, object] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": output.shape,
    }
    if binary:
        blobs.append(output.raw())
        tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
    else:
        tensor["data"] = output.values()
    return tensor


def _read_inputs(values: list[Any], blobs: memoryview) -> list[InputTensor]:
    inputs, at = [], 0
    for number, value in enumerate(values):
        try:
            tensor, size = _read_input(value, blobs[at:])
        except InvalidField as error:
            raise _within(f"inputs[{number}]", error) from None
        inputs.append(tensor)
        at += size
    if at < len(blobs):
        fault = f"they tell of {at} bytes behind the JSON, but there are {len(blobs)}"
        raise InvalidField("inputs", fault)
    return inputs


def _read_input(value: object, blobs: memoryview) -> tuple[InputTensor, int]:
    """A tensor, and how many of the `blobs` are its content."""
    tensor = _object("", value)
    name, datatype = _string(tensor, "name"), _string(tensor, "datatype")
    if "shape" not in tensor:
        raise InvalidField("shape", "this field is required, such as [1,1]")
    shape = tensor["shape"]
    if (
        type(shape) is not list
        or len(shape) > MAX_RANK
        or any(type(each) is not int for each in shape)
    ):
        raise _wrong("shape", "a list of a few whole numbers, such as [1,1]", shape)
    parameters = _object("parameters", tensor.get("parameters", {}))
    _refuse_unsupported(parameters)
    if ("data" in tensor) == ("binary_data_size" in parameters):
        both = "both" if "data" in tensor else "neither"
        raise InvalidField("", f"expected data or parameters.binary_data_size, got {both}")
    if "data" in tensor:
        data = _list("data", tensor["data"])
        return InputTensor(name, datatype, tuple(shape), values=data), 0
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise _wrong("parameters.binary_data_size", "a number of bytes", size)
    if size > len(blobs):
        fault = f"{size} bytes, but {len(blobs)} are left behind the JSON"
        raise InvalidField("parameters.binary_data_size", fault)
    return InputTensor(name, datatype, tuple(shape), raw=blobs[:size]), size


def _read_outputs(values: list[Any]) -> list[tuple[str, bool | None]]:
    outputs = []
    for number, value in enumerate(values):
        try:
            outputs.append(_read_output(value))
        except InvalidField as error:
            raise _within(f"outputs[{number}]", error) from None
    return outputs


def _read_output(value: object) -> tuple[str, bool | None]:
    """Its name, and whether it shall be binary, if that is said."""
    output = _object("", value)
    name = _string(output, "name")
    parameters = _object("parameters", output.get("parameters", {}))
    _refuse_unsupported(parameters)
    binary = parameters.get("binary_data")
    if binary is not None and not isinstance(binary, bool):
        raise _wrong("parameters.binary_data", "a boolean", binary)
    return name, binary


def _within(place: str, error: InvalidField) -> InvalidField:
    """The same fault, seen from outside."""
    return InvalidField(f"{place}.{error.field}" if error.field else place, error.fault)


def _refuse_unsupported(parameters: Mapping[str, Any]) -> None:
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise Unsupported(name, "send and ask for whole tensors")


def _string(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if key not in value:
        raise InvalidField(key, "this field is required")
    if not isinstance(found, str):
        raise _wrong(key, "a string", found)
    return found


def _list(place: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(place, "a list", value)
    return value


def _few(place: str, value: object) -> list[Any]:
    found = _list(place, value)
    check_few(place, len(found))
    return found


def _object(place: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(place, "an object", value)
    return value


def _wrong(place: str, expected: str, given: object) -> InvalidField:
    return InvalidField(place, f"expected {expected}, got {kind_of(given)}")
