"""Encoderfile's routes, row by row (its contract, sections 1 and 2)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from api.conftest import Client, Oracle, Repository, Serve

PREFIXES = ("", "/v1/models/minilm-ner", "/v1/models/minilm-ner/versions/1")
LABELS = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
TEXT_PLAIN = "text/plain; charset=utf-8"
NOT_JSON = "Failed to parse the request body as JSON: "
WRONG_SHAPE = "Failed to deserialize the JSON body into the target type: "
UNUSUAL = [
    "Zoë met 李明 in São Paulo.",
    "naïve cafe\u0301 — combining marks",
    "東京タワーはとても高い。",
    "👩‍👩‍👧 flew to Paris 🇫🇷 🚀!",
    "tabs\tand\r\nline\u2028breaks",
    "İstanbul ﬁne ǅ ß \u00ad soft­hyphen",
    "x\u0000y \u200b z",
]


def tokens_of(answer: Any, text: int = 0) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = answer["results"][text]["tokens"]
    return tokens


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_health(http: Client, prefix: str) -> None:
    """The JSON string OK!, five bytes (1.1)."""
    answer = await http.get(f"{prefix}/health")
    assert (answer.status, answer.body) == (200, b'"OK!"')
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_model(http: Client, prefix: str) -> None:
    """Name, type and labels in numeric order, compact (1.3)."""
    answer = await http.get(f"{prefix}/model")
    labels = ",".join(f'"{number}":"{label}"' for number, label in enumerate(LABELS))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text == (
        '{"model_id":"minilm-ner","model_type":"token_classification","id2label":{' + labels + "}}"
    )


@pytest.mark.parametrize("path", ["/health", "/model", "/openapi.json"])
async def test_head(http: Client, path: str) -> None:
    """HEAD answers as GET does, without the body."""
    full, head = await http.get(path), await http.send("HEAD", path)
    assert head.status == full.status == 200
    assert head.body == b""
    assert head.headers["Content-Type"] == full.headers["Content-Type"]
    assert head.headers["Content-Length"] == str(len(full.body))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["/", "/predict/", "/health/", "/model/", "/nope", "/infer", "/mcp", "/ready"]
)
async def test_unknown_path(http: Client, method: str, path: str) -> None:
    """404 with an empty body; a trailing slash makes a path unknown (1.1)."""
    answer = await http.send(method, path)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("DELETE", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("POST", "/health", "GET,HEAD"),
        ("PATCH", "/model", "GET,HEAD"),
    ],
)
async def test_wrong_method(http: Client, prefix: str, method: str, path: str, allow: str) -> None:
    """405 with an empty body, and what is allowed (1.1)."""
    answer = await http.send(method, prefix + path)
    assert (answer.status, answer.body) == (405, b"")
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_contract_example(http: Client, prefix: str) -> None:
    """The contract's own example: pieces, ids and byte offsets; the model is another one (1.5)."""
    answer = await http.post(f"{prefix}/predict", {"inputs": ["Zoë met 李明.", "Hi"]})
    assert answer.status == 200
    page = answer.json()
    assert [token["token_info"] for token in tokens_of(page)] == [
        {"token": "zoe", "token_id": 11199, "start": 0, "end": 4},
        {"token": "met", "token_id": 2777, "start": 5, "end": 8},
        {"token": "李", "token_id": 1877, "start": 9, "end": 12},
        {"token": "明", "token_id": 1865, "start": 12, "end": 15},
        {"token": ".", "token_id": 1012, "start": 15, "end": 16},
    ]
    assert [token["token_info"] for token in tokens_of(page, 1)] == [
        {"token": "hi", "token_id": 7632, "start": 0, "end": 2}
    ]


async def test_success_on_the_wire(http: Client) -> None:
    """Field order, compactness, unescaped UTF-8 and headers (1.1, 1.5)."""
    answer = await http.predict(["李"], metadata={"from": "café"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["x-nerve-model"] == "minilm-ner"
    assert answer.headers["x-nerve-model-version"] == "1"
    assert "x-nerve-truncated-inputs" not in answer.headers
    page = answer.json()
    assert list(page) == ["results", "model_id", "metadata"]
    token = tokens_of(page)[0]
    assert list(token) == ["token_info", "scores", "label", "score"]
    assert list(token["token_info"]) == ["token", "token_id", "start", "end"]
    start = (
        '{"results":[{"tokens":[{"token_info":{"token":"李","token_id":1877,"start":0,"end":3},'
        '"scores":['
    )
    assert answer.text.startswith(start)
    end = f'"score":{token["score"]}}}]}}],"model_id":"minilm-ner","metadata":{{"from":"café"}}}}'
    assert answer.text.endswith(end)
    assert len(token["scores"]) == len(LABELS)


@pytest.mark.parametrize("text", ["Apple bought Beats in California.", "[CLS] x [PAD]", *UNUSUAL])
async def test_equals_model_run_by_hand(http: Client, oracle: Oracle, text: str) -> None:
    """Tokens, UTF-8 byte offsets, raw logits, label and score equal tokenizer plus session (2.4)."""
    got = tokens_of((await http.predict([text])).json())
    expected = oracle.tokens(text)
    encoded = text.encode()
    assert [token["token_info"] for token in got] == [
        {
            "token": piece,
            "token_id": number,
            "start": len(text[:start].encode()),
            "end": len(text[:end].encode()),
        }
        for piece, number, start, end, _ in expected
    ]
    for token, (_, _, start, end, logits) in zip(got, expected, strict=True):
        info = token["token_info"]
        assert encoded[info["start"] : info["end"]].decode() == text[start:end]
        np.testing.assert_allclose(token["scores"], logits, rtol=0, atol=1e-4)
        assert token["label"] == LABELS[int(np.argmax(token["scores"]))]
        assert token["score"] == max(token["scores"])


async def test_scores_are_shortest_float32(http: Client) -> None:
    """No float64 tails, always a fraction or an exponent (1.5)."""
    answer = await http.predict(["Barack Obama was born in Hawaii.", *UNUSUAL])
    written = answer.decimals()
    count = sum(len(result["tokens"]) for result in answer.json()["results"])
    assert len(written) == count * (len(LABELS) + 1)
    for number in written:
        assert Decimal(number) == Decimal(str(np.float32(number))), number


async def test_ties_take_the_lowest_label(http: Client) -> None:
    """Five equal scores: label 0 (1.5)."""
    answer = await http.predict(["music"], model="rule")
    token = tokens_of(answer.json())[0]
    assert (token["scores"], token["label"], token["score"]) == ([1.5] * 5, "O", 1.5)


async def test_whole_numbers_have_a_fraction(http: Client) -> None:
    """A float never looks like an integer (1.5)."""
    answer = await http.predict(["university"], model="rule")
    assert '"scores":[0.5,0.0,0.25,6.0,-1.0]' in answer.text
    assert '"label":"B-WORK-OF-ART","score":6.0' in answer.text


async def test_special_tokens(http: Client) -> None:
    """Those that the tokenizer adds are dropped, those that the text spells are kept (2.4)."""
    tokens = tokens_of((await http.predict(["Hi [SEP] there"])).json())
    assert [token["token_info"] for token in tokens] == [
        {"token": "hi", "token_id": 7632, "start": 0, "end": 2},
        {"token": "[SEP]", "token_id": 102, "start": 3, "end": 8},
        {"token": "there", "token_id": 2045, "start": 9, "end": 14},
    ]


@pytest.mark.parametrize("text", [" ", "\t\n", "\u3000", "\u200b"])
async def test_blank_text(http: Client, text: str) -> None:
    """A text without tokens is answered with none (1.5)."""
    answer = await http.predict([text])
    assert answer.status == 200
    assert answer.text == '{"results":[{"tokens":[]}],"model_id":"minilm-ner"}'


async def test_blank_text_among_others(http: Client) -> None:
    """It shifts nothing."""
    results = (await http.predict(["one two", " ", "three"])).json()["results"]
    assert [[t["token_info"]["token"] for t in each["tokens"]] for each in results] == [
        ["one", "two"],
        [],
        ["three"],
    ]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2"])
async def test_byte_offsets_of_every_family(http: Client, tiny_models: Path, family: str) -> None:
    """Pieces, ids and offsets are the tokenizer's own, code points turned into bytes (2.4)."""
    tokenizer = Tokenizer.from_file(str(tiny_models / family / "tokenizer.json"))
    results = (await http.predict(UNUSUAL, model=family)).json()["results"]
    for text, result in zip(UNUSUAL, results, strict=True):
        encoded = tokenizer.encode(text)
        expected = [
            (piece, number, len(text[:start].encode()), len(text[:end].encode()))
            for piece, number, (start, end), special in zip(
                encoded.tokens,
                encoded.ids,
                encoded.offsets,
                encoded.special_tokens_mask,
                strict=True,
            )
            if not special
        ]
        assert [tuple(token["token_info"].values()) for token in result["tokens"]] == expected


async def test_offset_unit_utf16(http: Client) -> None:
    """Our addition: what JavaScript counts."""
    answer = await http.predict(["🚀 Paris"], offset_unit="utf16")
    assert answer.status == 200, answer.text
    info = tokens_of(answer.json())[-1]["token_info"]
    assert (info["token"], info["start"], info["end"]) == ("paris", 3, 8)


@pytest.mark.parametrize(
    ("metadata", "echo"),
    [({}, {}), ({"b": "1", "a": "é"}, {"b": "1", "a": "é"}), (None, None)],
)
async def test_metadata_echo(http: Client, metadata: object, echo: object) -> None:
    """Sent objects come back verbatim, null does not (1.5)."""
    page = (await http.predict(["x"], metadata=metadata)).json()
    assert ("metadata" in page) == (echo is not None)
    assert page.get("metadata") == echo


async def test_metadata_absent(http: Client) -> None:
    """Nothing sent, nothing back."""
    assert list((await http.predict(["x"])).json()) == ["results", "model_id"]


async def test_unknown_fields_are_ignored(http: Client) -> None:
    """Also repeated ones, and ones that hold the names of known ones (1.4)."""
    plain = await http.predict(["Paris"])
    for extra in (
        '"normalize":true',
        '"x":1,"x":2',
        '"x":{"inputs":3,"metadata":[1]}',
        '"x":[{"inputs":1,"inputs":2}]',
        '"":null',
    ):
        body = f'{{"inputs":["Paris"],{extra}}}'
        answer = await http.send("POST", "/predict", data=body.encode())
        assert (answer.status, answer.body) == (200, plain.body), extra


async def test_positional_body(http: Client) -> None:
    """serde takes the fields as an array, too (1.4)."""
    named = await http.predict(["Paris"], metadata={"k": "v"})
    assert (await http.post("/predict", [["Paris"], {"k": "v"}])).body == named.body
    bare = await http.predict(["Paris"])
    assert (await http.post("/predict", [["Paris"]])).body == bare.body
    assert (await http.post("/predict", [["Paris"], None])).body == bare.body


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "application/problem+json; x=y",
    ],
)
async def test_json_content_types(http: Client, content_type: str) -> None:
    """JSON by any of its names (1.4)."""
    body = b'{"inputs":["x"]}'
    answer = await http.send("POST", "/predict", data=body, content_type=content_type)
    assert answer.status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/json",
        "json",
        "garbage;;;",
    ],
)
async def test_other_content_types(http: Client, content_type: str | None) -> None:
    """415 and its text, whatever the body is (1.6)."""
    for body in (b'{"inputs":["x"]}', b"{", b"x" * 3_000_000):
        answer = await http.send("POST", "/predict", data=body, content_type=content_type)
        assert answer.status == 415
        assert answer.headers["Content-Type"] == TEXT_PLAIN
        assert answer.text == "Expected request with `Content-Type: application/json`"


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_body_limit(http: Client, prefix: str) -> None:
    """2 MiB are taken, one byte more is not (1.4, 1.6)."""
    body = b'{"inputs":["Paris"]}'
    full = await http.send("POST", f"{prefix}/predict", data=body.ljust(2_097_152))
    assert full.status == 200
    over = await http.send("POST", f"{prefix}/predict", data=body.ljust(2_097_153))
    assert over.status == 413
    assert over.headers["Content-Type"] == TEXT_PLAIN
    assert over.text == "Failed to buffer the request body: length limit exceeded"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"inputs":["a"]',
        b'{"inputs":["a"]} x',
        b'{"inputs":["a",]}',
        b"{'inputs':['a']}",
        b'{"inputs":["\\x"]}',
        b'{"inputs":["\\ud800"]}',
        b'{"inputs":["\\udc00\\ud800"]}',
        b'{"inputs":["\xff"]}',
        b'{"inputs":["\xed\xa0\x80"]}',
        b'{"inputs":["a\nb"]}',
        b'{"inputs":[NaN]}',
        b'\xef\xbb\xbf{"inputs":["a"]}',
        '{"inputs":["a"]}'.encode("utf-16"),
    ],
)
async def test_not_json(http: Client, body: bytes) -> None:
    """400 with the fixed beginning and some detail after it (1.6)."""
    answer = await http.send("POST", "/predict", data=body)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert answer.text.startswith(NOT_JSON)
    assert answer.text.removeprefix(NOT_JSON).strip()
    assert not answer.text.endswith("\n")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("{}", "inputs"),
        ('{"input":["a"]}', "inputs"),
        ('{"inputs":null}', "inputs"),
        ('{"inputs":"hi"}', "inputs"),
        ('{"inputs":3}', "inputs"),
        ('{"inputs":{"0":"a"}}', "inputs"),
        ('{"inputs":[1]}', "inputs[0]"),
        ('{"inputs":["a",null]}', "inputs[1]"),
        ('{"inputs":["a",true]}', "inputs[1]"),
        ('{"inputs":[["a"]]}', "inputs[0]"),
        ('{"inputs":[{}]}', "inputs[0]"),
        ('{"inputs":["a"],"metadata":3}', "metadata"),
        ('{"inputs":["a"],"metadata":["k"]}', "metadata"),
        ('{"inputs":["a"],"metadata":{"k":1}}', "metadata.k"),
        ('{"inputs":["a"],"metadata":{"k":null}}', "metadata.k"),
        ('{"inputs":["a"],"metadata":{"k":{}}}', "metadata.k"),
        ('{"inputs":["a"],"inputs":["b"]}', "duplicate field `inputs`"),
        ('{"inputs":["a"],"inputs":["a"]}', "duplicate field `inputs`"),
        ('{"inputs":["a"],"\\u0069nputs":["b"]}', "duplicate field `inputs`"),
        ('{"inputs":["a"],"metadata":null,"metadata":{}}', "duplicate field `metadata`"),
        ("[]", ""),
        ('[["a"],null,1]', ""),
        ('["a"]', "inputs"),
        ("null", ""),
        ("3", ""),
        ('"inputs"', ""),
        ("true", ""),
    ],
)
async def test_wrong_shape(http: Client, body: str, names: str) -> None:
    """422 with the fixed beginning, then the field's path (1.6)."""
    answer = await http.send("POST", "/predict", data=body.encode())
    assert answer.status == 422
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert answer.text.startswith(WRONG_SHAPE + names)
    assert len(answer.text) > len(WRONG_SHAPE)
    assert not answer.text.endswith("\n")


@pytest.mark.parametrize("inputs", [[], [""], ["a", ""], ["", "a"]])
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_empty_input(http: Client, prefix: str, inputs: list[str]) -> None:
    """One empty text fails the whole request, and so does no text (1.6)."""
    answer = await http.post(f"{prefix}/predict", {"inputs": inputs})
    assert answer.status == 422
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert answer.text == "Cannot tokenize empty string"


async def test_failed_tokenizer(http: Client) -> None:
    """500 and the fixed text (1.6)."""
    answer = await http.predict(["people", "world"], model="picky")
    assert answer.status == 500
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert answer.text == "Error during tokenization"
    assert (await http.predict(["people"], model="picky")).status == 200


async def test_failed_run(http: Client) -> None:
    """500 and the fixed text; the next request is answered (1.6)."""
    answer = await http.predict(["early people"], model="rule")
    assert answer.status == 500
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert answer.text == "Error running model"
    assert (await http.predict(["people"], model="rule")).status == 200


@pytest.mark.parametrize("word", ["night", "black"])
async def test_scores_that_are_no_numbers(http: Client, word: str) -> None:
    """Where Encoderfile drops the connection: 500 with a short text (1.6)."""
    answer = await http.predict([f"the {word} world"], model="rule")
    assert answer.status == 500
    assert answer.headers["Content-Type"] == TEXT_PLAIN
    assert 0 < len(answer.text) < 200
    assert "Traceback" not in answer.text


async def test_long_text_is_cut(http: Client, oracle: Oracle) -> None:
    """510 tokens of its own are kept, the first ones, and a header and a metric tell (2.3)."""
    text = "Paris " * 600
    before = await http.metric("nerve_truncated_texts_total", model="minilm-ner")
    answer = await http.predict([text])
    assert answer.status == 200
    tokens = tokens_of(answer.json())
    assert len(tokens) == 510
    assert tokens[0]["token_info"]["start"] == 0
    assert tokens[-1]["token_info"]["end"] == 510 * 6 - 1
    assert answer.headers["x-nerve-truncated-inputs"] == "1"
    after = await http.metric("nerve_truncated_texts_total", model="minilm-ner")
    assert after - before == 1


async def test_how_many_texts_were_cut(http: Client) -> None:
    """Two of three; a text of just the limit is not cut."""
    exact, long = "Paris " * 510, "Paris " * 511
    answer = await http.predict([long, exact, long])
    assert answer.headers["x-nerve-truncated-inputs"] == "2"
    assert [len(each["tokens"]) for each in answer.json()["results"]] == [510] * 3
    assert "x-nerve-truncated-inputs" not in (await http.predict([exact])).headers


async def test_windows_instead_of_a_cut(http: Client) -> None:
    """A model with a stride tags the whole text, each token once."""
    text = "people " * 100
    answer = await http.predict([text], model="strided")
    starts = [token["token_info"]["start"] for token in tokens_of(answer.json())]
    assert starts == list(range(0, 700, 7))
    assert "x-nerve-truncated-inputs" not in answer.headers


async def test_batch_order(http: Client) -> None:
    """results[i] is what inputs[i] gets alone (1.5)."""
    texts = [f"{'word ' * (number % 13)}Paris {number}" for number in range(40)]
    together = (await http.predict(texts)).json()["results"]
    for text, result in zip(texts, together, strict=True):
        alone = tokens_of((await http.predict([text])).json())
        for one, other in zip(result["tokens"], alone, strict=True):
            assert one["token_info"] == other["token_info"]
            np.testing.assert_allclose(one["scores"], other["scores"], rtol=0, atol=1e-4)


async def test_limit_of_inputs(http: Client) -> None:
    """1024 texts are answered, 1025 are refused, and both numbers are told."""
    full = await http.predict(["people"] * 1024, model="bert")
    assert full.status == 200
    assert len(full.json()["results"]) == 1024
    over = await http.predict(["people"] * 1025, model="bert")
    assert over.status == 413
    assert over.headers["Content-Type"] == TEXT_PLAIN
    assert "1025" in over.text
    assert "1024" in over.text


async def test_configured_limits(serve: Serve, repository: Repository) -> None:
    """The operator may lower both limits."""
    repository.add("bert")
    http = await serve(repository.path, max_inputs=2, max_body_bytes=1024)
    assert (await http.predict(["a", "b"])).status == 200
    assert (await http.predict(["a", "b", "c"])).status == 413
    assert (await http.predict(["x" * 1024])).status == 413


async def test_model_in_the_path(http: Client) -> None:
    """The path chooses the model, and the answer says which it was."""
    answer = await http.predict(["people"], model="roberta")
    assert answer.json()["model_id"] == "roberta"
    assert answer.headers["x-nerve-model"] == "roberta"
    assert (await http.get("/v1/models/roberta/model")).json()["model_id"] == "roberta"


async def test_versions(http: Client) -> None:
    """The highest one answers unless the path names another."""
    answers = {
        path: await http.post(f"/v1/models/multi{path}/predict", {"inputs": ["people"]})
        for path in ("", "/versions/1", "/versions/2")
    }
    assert answers[""].headers["x-nerve-model-version"] == "2"
    assert answers["/versions/1"].headers["x-nerve-model-version"] == "1"
    assert answers[""].body == answers["/versions/2"].body != answers["/versions/1"].body


async def test_openapi(http: Client) -> None:
    """There is a document at the root (1.7); test_openapi.py has the rest."""
    answer = await http.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    schemas = answer.json()["components"]["schemas"]
    for name in (
        "TokenClassificationRequest",
        "TokenClassificationResponse",
        "TokenClassificationResult",
        "TokenClassification",
        "TokenInfo",
        "GetModelMetadataResponse",
        "ModelType",
    ):
        assert name in schemas


async def test_offset_unit_of_server_and_model(
    serve: Serve, repository: Repository, http: Client
) -> None:
    """The model's choice over the server's over the dialect's own; the request's over all."""
    repository.add("bert")
    repository.add("utf16", offset_unit="utf16")
    own = await serve(repository.path, offset_unit="codepoint")
    text = "🚀é people"

    async def start(client: Client, model: str, **fields: object) -> int:
        answer = await client.predict([text], model=model, **fields)
        assert answer.status == 200, answer.text
        return int(tokens_of(answer.json())[-1]["token_info"]["start"])

    assert await start(http, "bert") == len("🚀é ".encode())
    assert await start(own, "bert") == 3
    assert await start(own, "utf16") == 4
    assert await start(own, "utf16", offset_unit="byte") == 7
