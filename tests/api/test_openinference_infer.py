"""POST …/infer: JSON, the binary layout, compression, limits (contract kserve-v2, section 3)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest

from api.openinference_wire import (
    INFER,
    LENGTH,
    blob_input,
    blobs_of,
    framed,
    said,
    send,
    text_input,
    unframed,
)

if TYPE_CHECKING:
    from api.conftest import Client, Oracle, Repository, Serve

RAW = "/v2/models/minilm-ner.raw/infer"
TEXTS = ["Zoë 🚀 in Paris", "Marie Curie worked at Siemens in Berlin"]


async def as_sent(
    http: Client, path: str, value: object, accepted: str
) -> tuple[int, Mapping[str, str], bytes]:
    """POST with an Accept-Encoding; the body of the answer is left as it came."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(
            http.server.url + path, json=value, headers={"Accept-Encoding": accepted}
        ) as response,
    ):
        return (response.status, response.headers, await response.read())


async def spans(http: Client, *texts: str) -> list[list[dict[str, Any]]]:
    """What another dialect finds in the texts."""
    found = (await http.predict_tokens(list(texts), aggregation_strategy="simple")).json()
    return [
        [
            {"text": each["token"], "start": each["start"], "end": each["end"], "score": score,
             "label": label}
            for each in text
            for label, score in each["results"].items()
        ]
        for text in found
    ]  # fmt: skip


# --- JSON


async def test_json(http: Client) -> None:
    """Everything that an answer has, and the same entities as elsewhere."""
    answer = await http.post(INFER, {"id": "42", "inputs": [text_input(*TEXTS)]})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert LENGTH not in answer.headers
    assert answer.headers["x-nerve-model"] == "minilm-ner"
    assert answer.headers["x-nerve-model-version"] == "1"
    body = answer.json()
    (output,) = body.pop("outputs")
    assert body == {"id": "42", "model_name": "minilm-ner", "model_version": "1"}
    data = output.pop("data")
    assert output == {"name": "ENTITIES", "datatype": "BYTES", "shape": [2, 1]}
    found = [json.loads(each) for each in data]
    assert found == await spans(http, *TEXTS)
    assert found[0]
    assert found[1]


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2, 1], TEXTS), ([2, 1], [[each] for each in TEXTS]), ([2], TEXTS)],
)
async def test_shapes(http: Client, shape: list[int], data: list[Any]) -> None:
    """Flat or nested; the answer has the shape that was asked."""
    answer = await http.post(INFER, {"inputs": [text_input(shape=shape, data=data)]})
    (output,) = answer.json()["outputs"]
    assert output["shape"] == shape
    assert [json.loads(each) for each in output["data"]] == await spans(http, *TEXTS)
    assert "id" not in answer.json()


async def test_unknown_fields_are_ignored(http: Client) -> None:
    """Those of the body, of inputs, and parameters of inputs and outputs."""
    value = {
        "model_name": "other",
        "anything": [None],
        "id": "",
        "parameters": {},
        "inputs": [text_input("people", other=1, parameters={"other": [None]})],
        "outputs": [{"name": "ENTITIES", "other": 1, "parameters": {"other": {}}}],
    }
    answer = await http.post(INFER, value)
    assert answer.status == 200
    assert "id" not in answer.json()


async def test_parameters_and_outputs(http: Client) -> None:
    """Options of the model, and outputs that are only given when named, in that order."""
    value = {
        "parameters": {"aggregation": "simple", "threshold": 1, "sequence_id": 7, "timeout": 10**7},
        "inputs": [text_input("Zoë in Paris")],
        "outputs": [{"name": "LABELS"}, {"name": "ENTITIES"}, {"name": "TOKENS"}],
    }
    outputs = (await http.post(INFER, value)).json()["outputs"]
    assert [each["name"] for each in outputs] == ["LABELS", "ENTITIES", "TOKENS"]
    labels, entities, tokens = (json.loads(each["data"][0]) for each in outputs)
    assert entities == []
    assert len(labels) == len(tokens) > 2


async def test_versions(http: Client) -> None:
    """Without one the highest answers."""
    for path, version in (("", "2"), ("/versions/1", "1"), ("/versions/2", "2")):
        answer = await http.post(
            f"/v2/models/multi{path}/infer", {"inputs": [text_input("people")]}
        )
        assert answer.json()["model_version"] == version
        assert answer.headers["x-nerve-model-version"] == version


async def test_truncation_is_told(http: Client) -> None:
    answer = await http.post(INFER, {"inputs": [text_input("word " * 600, "Paris")]})
    assert answer.headers["x-nerve-truncated-inputs"] == "1"


# --- the binary layout


async def test_binary(http: Client) -> None:
    """In and out; lengths count bytes."""
    raw = framed(*TEXTS)
    value = {
        "id": "ö",
        "inputs": [blob_input(len(raw), [2, 1])],
        "outputs": [{"name": "ENTITIES", "parameters": {"binary_data": True}}],
    }
    told, blobs = blobs_of(await send(http, value, raw))
    assert told["id"] == "ö"
    found = [json.loads(each) for each in unframed(blobs["ENTITIES"])]
    assert found == await spans(http, *TEXTS)


async def test_binary_input_alone(http: Client) -> None:
    """The answer is plain JSON then."""
    raw = framed(*TEXTS)
    answer = await send(http, {"inputs": [blob_input(len(raw), [2])]}, raw)
    assert LENGTH not in answer.headers
    (output,) = answer.json()["outputs"]
    assert [json.loads(each) for each in output["data"]] == await spans(http, *TEXTS)


@pytest.mark.parametrize("default", [None, False, True])
async def test_which_outputs_are_binary(http: Client, default: bool | None) -> None:
    """What an output says goes before what the request says."""
    value: dict[str, Any] = {
        "inputs": [text_input("Zoë in Paris")],
        "outputs": [
            {"name": "TOKENS", "parameters": {"binary_data": True}},
            {"name": "ENTITIES", "parameters": {"binary_data": False}},
            {"name": "LABELS"},
        ],
    }
    if default is not None:
        value["parameters"] = {"binary_data_output": default}
    told, blobs = blobs_of(await http.post(INFER, value))
    assert [each["name"] for each in told["outputs"]] == ["TOKENS", "ENTITIES", "LABELS"]
    assert sorted(blobs) == (["LABELS", "TOKENS"] if default else ["TOKENS"])
    (row,) = unframed(blobs["TOKENS"])
    assert len(json.loads(row)) > 2


async def test_header_counts_all_of_the_json(http: Client) -> None:
    """A header without binary inputs; none with a binary input of no bytes."""
    value = {"inputs": [text_input("people")]}
    assert (await send(http, value)).status == 200
    answer = await http.post(INFER, {"inputs": [blob_input(0, [0, 1])]})
    assert "a batch of 0" in said(answer, 400)


async def test_raw_view(http: Client, oracle: Oracle) -> None:
    """Token ids in JSON and in binary, mixed; logits as the runtime has them."""
    encoded = oracle.tokenizer.encode("Zoë in Paris")
    ids = np.array([encoded.ids], dtype="<i8")
    shape = [1, len(encoded.ids)]
    value = {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "attention_mask", "datatype": "INT64", "shape": shape,
             "data": [[1] * shape[1]]},
            {"name": "input_ids", "datatype": "INT64", "shape": shape,
             "parameters": {"binary_data_size": ids.nbytes}},
        ],
    }  # fmt: skip
    told, blobs = blobs_of(await send(http, value, ids.tobytes(), path=RAW))
    assert told["model_name"] == "minilm-ner.raw"
    (output,) = told["outputs"]
    assert output["shape"] == [*shape, len(oracle.labels)]
    logits = np.frombuffer(blobs["logits"], "<f4").reshape(output["shape"])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
    np.testing.assert_allclose(logits, oracle.session.run(["logits"], given)[0], atol=1e-4)
    value["parameters"] = {}
    (again,) = (await send(http, value, ids.tobytes(), path=RAW)).json()["outputs"]
    assert np.array(again["data"], dtype=np.float32).tolist() == logits.reshape(-1).tolist()


async def test_odd_places_in_the_body(http: Client) -> None:
    """Numbers need not stand at a multiple of their size."""
    ids = np.array([[101, 102]], dtype="<i8").tobytes()
    for pad in range(8):
        value = {
            "id": " " * pad,
            "inputs": [
                {"name": "input_ids", "datatype": "INT64", "shape": [1, 2],
                 "parameters": {"binary_data_size": len(ids)}},
            ],
        }  # fmt: skip
        assert (await send(http, value, ids, path=RAW)).status == 200


async def test_raw_binary_request(http: Client) -> None:
    """The body is the text, the answer binary."""
    answer = await http.send("POST", INFER, data=TEXTS[0].encode(), headers={LENGTH: "0"})
    told, blobs = blobs_of(answer)
    assert told["outputs"][0]["shape"] == [1, 1]
    found = [json.loads(each) for each in unframed(blobs["ENTITIES"])]
    assert found == await spans(http, TEXTS[0])


async def test_bad_raw_binary_requests(http: Client) -> None:
    """Several inputs, no text, no UTF-8; and an empty body alone is none."""
    none = {LENGTH: "0"}
    answer = await http.send("POST", RAW, data=b"\0" * 8, headers=none)
    assert "several inputs" in said(answer, 400)
    said(await http.send("POST", INFER, data=b"", headers=none), 400)
    answer = await http.send("POST", INFER, data=b"\xff", headers=none)
    assert "not valid UTF-8" in said(answer, 400)
    assert "it is empty" in said(await http.send("POST", INFER, data=b""), 400)
    said(await http.send("POST", "/v2/models/nope/infer", data=b"a", headers=none), 404)


# --- compression


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "identity", ""])
async def test_compressed_requests(http: Client, coding: str) -> None:
    """The header counts the JSON before it was compressed."""
    raw = framed(*TEXTS)
    head = json.dumps({"inputs": [blob_input(len(raw), [2, 1])]}).encode()
    headers = {"Content-Encoding": coding, LENGTH: str(len(head))}
    data = head + raw
    if coding in ("gzip", "GZIP"):
        data = gzip.compress(data)
    elif coding == "deflate":
        data = zlib.compress(data)
    answer = await http.send("POST", INFER, data=data, headers=headers)
    assert answer.status == 200, answer
    assert len(answer.json()["outputs"][0]["data"]) == 2


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x" * 300])
@pytest.mark.parametrize("path", [INFER, "/v2/models/bert/generate", "/v2/repository/index"])
async def test_unknown_encodings(http: Client, path: str, coding: str) -> None:
    """415, and it tells which are read."""
    answer = await http.send("POST", path, data=b"{}", headers={"Content-Encoding": coding})
    said(answer, 415)
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


async def test_raw_deflate_is_broken(http: Client) -> None:
    """deflate means the container of zlib."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(json.dumps({"inputs": [text_input("a")]}).encode()) + packer.flush()
    headers = {"Content-Encoding": "deflate"}
    said(await http.send("POST", INFER, data=data, headers=headers), 400)


def _plain(body: bytes, coding: str | None) -> bytes:
    match coding:
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
    assert coding is None
    return body


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br, zstd", None),
        ("identity", None),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0, deflate;q=0", None),
        ("*", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
async def test_compressed_answers(
    http: Client, accepted: str, coding: str | None, binary: bool
) -> None:
    """Large enough ones, as the client prefers; lengths are those before compression."""
    value = {
        "parameters": {"binary_data_output": binary},
        "inputs": [text_input(*TEXTS * 16)],
    }
    status, headers, body = await as_sent(http, INFER, value, accepted)
    assert status == 200
    assert headers.get("Content-Encoding") == coding
    body = _plain(body, coding)
    length = int(headers[LENGTH]) if binary else len(body)
    assert binary == (length < len(body))
    (output,) = json.loads(body[:length])["outputs"]
    assert output["shape"] == [32, 1]


async def test_small_answers_and_errors_stay_plain(http: Client) -> None:
    """tritonclient.http.aio offers gzip always, and reads it in answers of infer only."""
    small = {"inputs": [text_input("people")]}
    for path, value, status in (
        (INFER, small, 200),
        (INFER, {"id": "x" * 5000, "inputs": []}, 400),
        ("/v2/models/minilm-ner/generate", {"TEXT": TEXTS * 16}, 200),
        ("/v2/repository/index", {}, 200),
    ):
        got, headers, body = await as_sent(http, path, value, "gzip, deflate, br")
        assert got == status
        assert "Content-Encoding" not in headers
        assert json.loads(body)


# --- limits


async def test_body_limit(serve: Serve, repository: Repository) -> None:
    """max_infer_bytes, to the byte, of what was sent and of what it inflates to."""
    repository.add("bert")
    http = await serve(repository.path, max_infer_bytes=4096)
    for path, value in (
        ("/v2/models/bert/infer", {"inputs": [text_input("people")]}),
        ("/v2/models/bert/generate", {"TEXT": "people"}),
    ):
        for size, status in ((4096, 200), (4097, 413)):
            body = json.dumps(value).encode().ljust(size)
            for data, headers in (
                (body, {}),
                (gzip.compress(body), {"Content-Encoding": "gzip"}),
            ):
                answer = await http.send("POST", path, data=data, headers=headers)
                assert answer.status == status, answer
                if status == 413:
                    assert "4096" in said(answer, 413)


async def test_large_requests(http: Client) -> None:
    """Over the limit of other routes, and over what is parsed on the event loop."""
    text = "Paris " * 300_000
    answer = await http.post(INFER, {"inputs": [text_input(text)]})
    assert answer.status == 200
    assert answer.headers["x-nerve-truncated-inputs"] == "1"
    raw = framed(text * 3)
    answer = await send(http, {"inputs": [blob_input(len(raw), [1, 1])]}, raw)
    assert answer.headers["x-nerve-truncated-inputs"] == "1"
