"""Requests of the Open Inference Protocol as they go over the wire, written by hand."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.conftest import Answer, Client

INFER = "/v2/models/minilm-ner/infer"
LENGTH = "Inference-Header-Content-Length"


def framed(*texts: str | bytes) -> bytes:
    """BYTES in the binary layout."""
    data = [each if isinstance(each, bytes) else each.encode() for each in texts]
    return b"".join(struct.pack("<I", len(each)) + each for each in data)


def unframed(raw: bytes) -> list[bytes]:
    """The elements again; nothing may be left."""
    found, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + size])
        assert len(found[-1]) == size
        at += 4 + size
    return found


def text_input(*texts: object, **changes: object) -> dict[str, Any]:
    """TEXT as JSON."""
    tensor: dict[str, Any] = {
        "name": "TEXT",
        "shape": [len(texts), 1],
        "datatype": "BYTES",
        "data": list(texts),
    }
    return tensor | changes


def blob_input(size: int, shape: list[int], **changes: object) -> dict[str, Any]:
    """TEXT whose content is behind the JSON."""
    tensor: dict[str, Any] = {
        "name": "TEXT",
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"binary_data_size": size},
    }
    return tensor | changes


async def send(
    http: Client, value: object, *blobs: bytes, path: str = INFER, **headers: str
) -> Answer:
    """JSON, then blobs."""
    head = json.dumps(value).encode()
    told = {LENGTH: str(len(head))} | headers
    return await http.send("POST", path, data=head + b"".join(blobs), headers=told)


def blobs_of(answer: Answer) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON of a binary answer, and the content of each of its binary outputs."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    value, rest = json.loads(answer.body[:length]), answer.body[length:]
    found = {}
    for output in value["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        assert (size is None) == ("data" in output)
        if size is not None:
            found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return value, found


def said(answer: Answer, status: int) -> str:
    """The sentence of an error."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    sentence: str = body["error"]
    return sentence
