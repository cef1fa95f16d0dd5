"""The flat JSON of generate (kserve-v2, section 3). Pure; knows no aiohttp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from nerve.errors import InvalidField, shown
from nerve.frontend.http.openinference.codec import Document, begin, read_parameters
from nerve.frontend.v2.infer import InferRequest, InferResponse
from nerve.frontend.v2.tensors import BYTES, InputTensor
from nerve.frontend.v2.views import ATTENTION_MASK, INPUT_IDS, TEXT, TOKEN_TYPE_IDS, View

ALIAS: Final = "text_input"
"""What the protocol's examples call the text."""
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {TEXT: (TEXT, BYTES), ALIAS: (TEXT, BYTES)}
_IDS: Final[Mapping[str, tuple[str, str]]] = {
    name: (name, "INT64") for name in (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
}
INPUTS: Final = {View.TEXT: _TEXTS, View.RAW: _IDS}
"""Tensor and datatype of each key that is an input."""


def read_generate(document: Document, model: str, version: str, view: View) -> InferRequest:
    """What a flat object asks for: keys that are inputs are tensors, the others parameters.

    A list of texts is a batch, a list of ids is one row.

    Args:
        document: see `codec.read_document`.
        model, version: of the path; an empty version leaves it to the server.
        view: of the model.
    Raises:
        InvalidField.
    """
    flat = {key: each for key, each in document.value.items() if key != "id"}
    nested = read_parameters(flat.pop("parameters", {}))
    known = INPUTS[view]
    inputs = [
        _tensor(*known[key], value, one_row=view is View.RAW)
        for key, value in flat.items()
        if key in known
    ]
    if not inputs:
        wanted = " or ".join((TEXT, ALIAS) if view is View.TEXT else (INPUT_IDS,))
        given = ", ".join(map(shown, list(flat)[:8])) or "nothing"
        raise InvalidField("", f"expected {wanted}, got {given}")
    parameters = read_parameters({key: each for key, each in flat.items() if key not in known})
    if twice := sorted(parameters.keys() & nested.keys()):
        raise InvalidField("parameters", f"{shown(twice[0], 64)} is there more than once")
    return InferRequest(model, version, document.id, parameters | nested, inputs)


def _tensor(name: str, datatype: str, value: object, *, one_row: bool) -> InputTensor:
    if not isinstance(value, list):
        return InputTensor(name, datatype, (1, 1), values=[value])
    shape = (1, len(value)) if one_row else (len(value),)
    return InputTensor(name, datatype, shape, values=value)


def write_generated(response: InferResponse) -> bytes:
    """The answer: outputs as values, or as flat lists where a list was given."""
    answer = begin(response)
    for output in response.outputs:
        values = output.values()
        answer[output.name] = values[0] if output.shape == (1, 1) else values
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def as_event(body: bytes) -> bytes:
    """A server-sent event that holds a JSON document."""
    return b"data: " + body + b"\n\n"
