"""POST …/generate and …/generate_stream (contract kserve-v2, section 3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from api.openinference_wire import said

if TYPE_CHECKING:
    from api.conftest import Client, Oracle

GENERATE = "/v2/models/minilm-ner/generate"
TEXTS = ["Zoë 🚀 in Paris", "Marie Curie worked at Siemens in Berlin"]


async def inferred(http: Client, *texts: str, **parameters: object) -> list[str]:
    """What infer says of the texts."""
    tensor = {"name": "TEXT", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    value = {"inputs": [tensor], "parameters": parameters}
    answer = await http.post("/v2/models/minilm-ner/infer", value)
    data: list[str] = answer.json()["outputs"][0]["data"]
    return data


@pytest.mark.parametrize("name", ["TEXT", "text_input"])
async def test_a_text(http: Client, name: str) -> None:
    """One in, one out."""
    answer = await http.post(GENERATE, {name: TEXTS[0], "id": "7"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-nerve-model"] == "minilm-ner"
    assert answer.json() == {
        "id": "7",
        "model_name": "minilm-ner",
        "model_version": "1",
        "ENTITIES": (await inferred(http, TEXTS[0]))[0],
    }


async def test_a_list(http: Client) -> None:
    """A list in, a list out, also of one."""
    for texts in (TEXTS, TEXTS[:1]):
        body = (await http.post(GENERATE, {"TEXT": texts})).json()
        assert body["ENTITIES"] == await inferred(http, *texts)
        assert "id" not in body


@pytest.mark.parametrize(
    "more",
    [
        {"threshold": 1},
        {"parameters": {"threshold": 1}},
        {"aggregation": "max", "parameters": {"threshold": 1}},
    ],
)
async def test_parameters(http: Client, more: dict[str, Any]) -> None:
    """Beside the text, or in an object."""
    body = (await http.post(GENERATE, {"TEXT": TEXTS[0]} | more)).json()
    assert body["ENTITIES"] == "[]"
    assert (await http.post(GENERATE, {"TEXT": TEXTS[0]})).json()["ENTITIES"] != "[]"


async def test_versions(http: Client) -> None:
    answer = await http.post("/v2/models/multi/versions/1/generate", {"TEXT": "people"})
    assert answer.json()["model_version"] == "1"


async def test_raw_view(http: Client, oracle: Oracle) -> None:
    """A list of ids is one row; the logits are flat."""
    ids = oracle.tokenizer.encode("Zoë in Paris").ids
    body = (await http.post("/v2/models/minilm-ner.raw/generate", {"input_ids": ids})).json()
    rows = np.array([ids], dtype=np.int64)
    given = {"input_ids": rows, "attention_mask": rows * 0 + 1, "token_type_ids": rows * 0}
    expected = oracle.session.run(["logits"], given)[0]
    np.testing.assert_allclose(body["logits"], expected.reshape(-1), atol=1e-4)


@pytest.mark.parametrize("value", [{"TEXT": TEXTS[0], "id": "7"}, {"TEXT": TEXTS}])
async def test_stream(http: Client, value: dict[str, Any]) -> None:
    """One event, with the answer of generate."""
    answer = await http.post(f"{GENERATE}_stream", value)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.text.startswith("data: ")
    assert answer.text.endswith("}\n\n")
    assert answer.text.count("\n") == 2
    assert json.loads(answer.text.removeprefix("data: ")) == (
        (await http.post(GENERATE, value)).json()
    )


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", "it is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        ({}, "expected TEXT or text_input, got nothing"),
        ({"text": "a"}, "expected TEXT or text_input, got 'text'"),
        ({"TEXT": 1}, "expected strings"),
        ({"TEXT": None}, "expected strings"),
        ({"TEXT": ["a", 1]}, "expected strings"),
        ({"TEXT": [["a"]]}, "expected strings"),
        ({"TEXT": []}, "a batch of 0"),
        ({"TEXT": ""}, "none may be an empty string"),
        ({"TEXT": "a", "text_input": "b"}, "'TEXT' is there more than once"),
        ({"TEXT": "a", "parameters": None}, "parameters: expected an object"),
        ({"TEXT": "a", "parameters": {"x": []}}, "parameters.x: expected a string"),
        ({"TEXT": "a", "threshold": None}, "parameters.threshold: expected a string, a number"),
        ({"TEXT": "a", "nope": 1}, "there is no 'nope'; there are"),
        ({"TEXT": "a", "triton_x": 1}, "reserved"),
        ({"TEXT": "a", "threshold": 1, "parameters": {"threshold": 1}}, "more than once"),
        ({"TEXT": "a", "threshold": "much"}, "parameters.threshold: expected a number"),
        ({"TEXT": "a", "priority": 99}, "parameters.priority: "),
    ],
)
@pytest.mark.parametrize("stream", ["", "_stream"])
async def test_bad_requests(http: Client, value: object, sentence: str, stream: str) -> None:
    """400 before anything is sent, with the id."""
    path = GENERATE + stream
    if isinstance(value, bytes):
        answer = await http.send("POST", path, data=value)
        prefix = "[request id: <id_unknown>] "
    else:
        assert isinstance(value, dict)
        answer = await http.post(path, {"id": "a7"} | value)
        prefix = "[request id: a7] "
    assert sentence in said(answer, 400)
    assert said(answer, 400).startswith(prefix)


@pytest.mark.parametrize("stream", ["", "_stream"])
async def test_models_that_do_not_answer(http: Client, stream: str) -> None:
    for name, text, status in (
        ("nope", "a", 404),
        ("multi/versions/3", "a", 404),
        ("broken", "a", 503),
        ("rule", "early", 500),
    ):
        answer = await http.post(f"/v2/models/{name}/generate{stream}", {"TEXT": text})
        said(answer, status)
