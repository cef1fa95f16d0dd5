"""BEI's routes beside predict_tokens, row by row (its contract, sections 3.3, 6 and 8)."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from baseten_performance_client import PerformanceClient
from tokenizers import Tokenizer

import nerve
from nerve.frontend.http.bei import WRITTEN_AT_ONCE

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Answer, Client, Repository, Serve, Server, ServerOf

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2")
PLACES = ("", "/v1/models/minilm-ner", "/v1/models/minilm-ner/versions/1")
PREFIXES = ("/production/sync", "/environments/staging/sync", "/deployment/abc/sync")
ADA = "Ada Lovelace met Babbage in London"
TEXTS = [
    ADA,
    " ",
    "🚀 Elon Musk 👩‍👩‍👧 met Zoë in São Paulo 🇧🇷.",
    "Jose\u0301 lives in Ko\u0308ln\r\nand Angela Merkel in Berlin.",
    "李明 works for 腾讯 in 深圳, China.",
    "Foo\u00adbar GmbH of Mu\u200bnich [SEP] <s> [MASK]",
    "नमस्ते दिल्ली، السلام عليكم Москва",
    "\tA\r\n\r\nB\u3000C\u2028D",
]
LONG = " ".join(TEXTS) * 60
"""More tokens than any of the models takes, or are written at once."""
CODECS = {"codepoint": ("utf-32-le", 4), "byte": ("utf-8", 1), "utf16": ("utf-16-le", 2)}


def library(folder: Path) -> Tokenizer:
    """The `tokenizers` library with a model's file, cutting nothing."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def expected(tokenizer: Tokenizer, text: str, *, special: bool = True) -> list[dict[str, Any]]:
    """What /tokenize has to answer for a text, in code points."""
    encoded = tokenizer.encode(text, add_special_tokens=special)
    return [
        {"id": number, "text": piece, "special": True, "start": None, "stop": None}
        if added
        else {"id": number, "text": text[start:end], "special": False, "start": start, "stop": end}
        for number, piece, added, (start, end) in zip(
            encoded.ids,
            encoded.tokens,
            encoded.special_tokens_mask,
            encoded.offsets,
            strict=True,
        )
    ]


def refused(answer: Answer, status: int, kind: str) -> str:
    """Check an error's status and shape; its sentence comes back."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == kind
    return str(body["error"])


async def tokenize(http: Client, model: str, inputs: object, **fields: object) -> Any:
    """The body of a good answer."""
    answer = await http.post(f"/v1/models/{model}/tokenize", {"inputs": inputs, **fields})
    assert answer.status == 200, answer.text
    return answer.json()


# --- tokenize


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("special", [True, False])
async def test_tokens_are_the_librarys(
    http: Client, tiny_models: Path, family: str, special: bool
) -> None:
    """Ids, text and places, of short texts and of one far longer than the model."""
    tokenizer = library(tiny_models / family)
    texts = [*TEXTS, LONG]
    found = await tokenize(http, family, texts, add_special_tokens=special)
    assert found == [expected(tokenizer, text, special=special) for text in texts]
    assert len(found[-1]) > WRITTEN_AT_ONCE


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["", *PREFIXES])
async def test_on_the_wire(http: Client, bundled: Path, place: str, prefix: str) -> None:
    """Exactly five keys in TEI's order, compact; who answered is in the head."""
    answer = await http.post(f"{prefix}{place}/tokenize", {"inputs": ADA})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-nerve-model"] == "minilm-ner"
    assert answer.headers["x-nerve-model-version"] == "1"
    tokens = expected(library(bundled / "minilm-ner" / "1"), ADA)
    assert answer.text == json.dumps([tokens], separators=(",", ":"))
    assert tokens[0]["text"] == "[CLS]"


@pytest.mark.parametrize(
    "inputs", [ADA, [ADA, "x"], [[ADA], ["x"]], [[ADA, "x"]], [ADA, ["x"]]], ids=str
)
async def test_shapes_of_inputs(http: Client, bundled: Path, inputs: object) -> None:
    """As on predict_tokens: nesting only groups."""
    tokenizer = library(bundled / "minilm-ner" / "1")
    answer = await http.post("/tokenize", {"inputs": inputs})
    texts = [ADA] if inputs == ADA else [ADA, "x"]
    assert answer.json() == [expected(tokenizer, text) for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", sorted(CODECS))
async def test_offset_unit(http: Client, family: str, unit: str) -> None:
    """Places in every unit; a token's text is the stretch that they name."""
    texts = [*TEXTS, LONG]
    codec, width = CODECS[unit]
    default = await tokenize(http, family, texts)
    found = await tokenize(http, family, texts, offset_unit=unit)
    for text, tokens, by_default in zip(texts, found, default, strict=True):
        coded = text.encode(codec)
        for token, same in zip(tokens, by_default, strict=True):
            assert token | {"start": 0, "stop": 0} == same | {"start": 0, "stop": 0}
            if not token["special"]:
                named = coded[token["start"] * width : token["stop"] * width]
                assert named.decode(codec) == token["text"]


async def test_offset_unit_of_the_model(http: Client) -> None:
    """Where a request does not say, its config does."""
    text = "🚀 Elon"
    assert (await tokenize(http, "configured", text))[0][-2]["stop"] == 7
    assert (await tokenize(http, "configured", text, offset_unit="codepoint"))[0][-2]["stop"] == 6


async def test_offset_unit_of_the_server(serve: Serve, repository: Repository) -> None:
    """Where neither says, the server's setting does: bytes are what BEI counts."""
    repository.add("plain")
    repository.add("own", offset_unit="utf16")
    http = await serve(repository.path, offset_unit="byte")
    text = "🚀 Elon"
    assert (await tokenize(http, "plain", text))[0][-2]["stop"] == 9
    assert (await tokenize(http, "own", text))[0][-2]["stop"] == 7
    assert (await tokenize(http, "plain", text, offset_unit="codepoint"))[0][-2]["stop"] == 6


async def test_a_model_that_wants_no_special_tokens(serve: Serve, repository: Repository) -> None:
    """By default a text is tokenized as for the model; the request may say otherwise."""
    repository.add("bare", tokenizer={"add_special_tokens": False})
    http = await serve(repository.path)
    tokenizer = library(repository.path / "bare")
    for fields, special in (
        ({}, False),
        ({"add_special_tokens": None}, False),
        ({"add_special_tokens": True}, True),
        ({"add_special_tokens": False}, False),
    ):
        answer = await http.post("/tokenize", {"inputs": TEXTS} | fields)
        assert answer.json() == [expected(tokenizer, text, special=special) for text in TEXTS]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stride", [None, 8])
async def test_a_long_text_is_not_cut(
    serve: Serve, repository: Repository, tiny_models: Path, side: str, stride: int | None
) -> None:
    """Whatever the model does with one: it is tokenized whole, each token once."""
    config = {"max_length": 32, "truncation_side": side}
    repository.add("ner", tokenizer=config | ({} if stride is None else {"stride": stride}))
    http = await serve(repository.path)
    text = " ".join(TEXTS) * 10
    assert await tokenize(http, "ner", text) == [expected(library(tiny_models / "bert"), text)]


async def test_limit_of_characters(serve: Serve, repository: Repository) -> None:
    """TEI's guard: 250 for each token that the model takes."""
    repository.add("ner", tokenizer={"max_length": 8})
    http = await serve(repository.path)
    assert (await http.post("/tokenize", {"inputs": "a " * 1000})).status == 200
    answer = await http.post("/tokenize", {"inputs": ["a", "a " * 1000 + "a"]})
    assert refused(answer, 413, "Validation") == (
        "Input validation error: `inputs` must have less than 2000 characters. Given: 2001"
    )


# --- decode


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("skip", [True, False, None])
async def test_decoded_tokens_are_the_librarys(
    http: Client, tiny_models: Path, family: str, skip: bool | None
) -> None:
    """What /tokenize gave comes back as the library decodes it, special tokens left out or not."""
    tokenizer = library(tiny_models / family)
    texts = [*TEXTS, LONG]
    rows = [[each["id"] for each in tokens] for tokens in await tokenize(http, family, texts)]
    fields = {} if skip is None else {"skip_special_tokens": skip}
    answer = await http.post(f"/v1/models/{family}/decode", {"ids": rows} | fields)
    assert answer.status == 200
    skipped = skip is not False
    assert answer.json() == [tokenizer.decode(row, skip_special_tokens=skipped) for row in rows]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["", *PREFIXES])
async def test_decoded_text(http: Client, place: str, prefix: str) -> None:
    """One list of ids, or several; the answer is a list either way."""
    tokens = (await http.post("/tokenize", {"inputs": ADA})).json()[0]
    ids = [each["id"] for each in tokens]
    for sent, texts in ((ids, 1), ([ids], 1), ([ids, ids[1:3]], 2)):
        answer = await http.post(f"{prefix}{place}/decode", {"ids": sent})
        assert answer.status == 200
        assert answer.headers["x-nerve-model"] == "minilm-ner"
        assert len(answer.json()) == texts
        assert answer.json()[0].lower() == ADA.lower()


@pytest.mark.parametrize("number", [-1, 1 << 31, 1 << 53, -(1 << 40)])
async def test_ids_out_of_the_vocabulary(http: Client, tiny_models: Path, number: int) -> None:
    """The first that is not there is named, and what there is."""
    highest = max(library(tiny_models / "bert").get_vocab().values())
    for ids in ([5, number], [[5], [6, number]]):
        answer = await http.post("/v1/models/bert/decode", {"ids": ids})
        assert refused(answer, 422, "Validation") == (
            f"ids: {number} is not in the vocabulary, whose ids are 0 to {highest}"
        )
    answer = await http.post("/v1/models/bert/decode", {"ids": [highest]})
    assert answer.status == 200
    answer = await http.post("/v1/models/bert/decode", {"ids": [highest + 1]})
    assert answer.status == 422


async def test_limit_of_ids(serve: Serve, repository: Repository) -> None:
    """As many as the longest texts of a full request have."""
    repository.add("ner", tokenizer={"max_length": 8})
    http = await serve(repository.path, max_client_batch_size=3)
    assert (await http.post("/decode", {"ids": [[5] * 24]})).status == 200
    for ids in ([5] * 25, [[5] * 12, [5] * 13]):
        answer = await http.post("/decode", {"ids": ids})
        fault = "ids: 25 ids in one request, at most 24 are taken"
        assert refused(answer, 422, "Validation") == fault
    assert (await http.post("/decode", {"ids": [[5]] * 3})).status == 200
    answer = await http.post("/decode", {"ids": [[5]] * 4})
    assert refused(answer, 413, "Validation") == "batch size 4 > maximum allowed batch size 3"


# --- what is refused


NO_TEXTS: list[object] = ["", [], [""], [[]], ["a", ""], [["a"], [""]]]
NO_IDS: list[object] = [[], [[]], [[5], []]]
EMPTY = [
    *[("tokenize", "inputs", each) for each in NO_TEXTS],
    *[("decode", "ids", each) for each in NO_IDS],
]


@pytest.mark.parametrize(("route", "field", "value"), EMPTY, ids=str)
@pytest.mark.parametrize("place", PLACES)
async def test_nothing_to_do(
    http: Client, place: str, route: str, field: str, value: object
) -> None:
    """No text or id, or an empty one among others: the whole request is refused."""
    answer = await http.post(f"{place}/{route}", {field: value})
    assert refused(answer, 400, "Empty") == f"`{field}` cannot be empty"


WRONG = [
    ("tokenize", {}, "inputs: this field is required"),
    ("tokenize", {"inputs": None}, "inputs: expected a string or a list of texts, got null"),
    ("tokenize", {"inputs": 3}, "inputs: expected a string or a list of texts, got a number"),
    ("tokenize", {"inputs": [["a"], [3]]}, "inputs: item [1][0]: expected a string, got a number"),
    ("tokenize", {"inputs": [[["a"]]]}, "inputs: item [0][0]: expected a string, got a list"),
    ("tokenize", {"inputs": "a", "add_special_tokens": "yes"}, "add_special_tokens: "),
    ("tokenize", {"inputs": "a", "add_special_tokens": 1}, "add_special_tokens: "),
    ("tokenize", {"inputs": "a", "offset_unit": "char"}, "offset_unit: "),
    ("decode", {}, "ids: this field is required"),
    ("decode", {"ids": None}, "ids: expected a list of token ids, or a list of lists, got null"),
    ("decode", {"ids": 5}, "ids: expected a list of token ids, or a list of lists, got a number"),
    ("decode", {"ids": "5"}, "ids: expected a list of token ids, or a list of lists, got a string"),
    ("decode", {"ids": [5, "6"]}, "ids: item [1]: expected a whole number, got a string"),
    ("decode", {"ids": [5, 6.5]}, "ids: item [1]: expected a whole number, got 6.5"),
    ("decode", {"ids": [True]}, "ids: item [0]: expected a whole number, got a boolean"),
    ("decode", {"ids": [5, [6]]}, "ids: item [1]: expected a whole number, got a list"),
    ("decode", {"ids": [[5], 6]}, "ids: item [1]: expected a list, got a number"),
    ("decode", {"ids": [[5], [[6]]]}, "ids: item [1][0]: expected a whole number, got a list"),
    ("decode", {"ids": [[5], [None]]}, "ids: item [1][0]: expected a whole number, got null"),
    ("decode", {"ids": [5], "skip_special_tokens": None}, "skip_special_tokens: "),
    ("tokenize", ["a"], "expected a JSON object, got a list"),
    ("decode", [5], "expected a JSON object, got a list"),
]


@pytest.mark.parametrize(("route", "body", "message"), WRONG, ids=str)
async def test_wrong_types(http: Client, route: str, body: object, message: str) -> None:
    """The field, and what is wrong with it."""
    answer = await http.post(f"/{route}", body)
    assert refused(answer, 422, "Validation").startswith(message)


@pytest.mark.parametrize("route", ["tokenize", "decode"])
async def test_bodies_that_are_refused(http: Client, route: str) -> None:
    """Not JSON, or too much of it; any Content-Type is read."""
    for data in (b"", b"{", b"\xff", b'{"ids": [NaN]}', b'{"inputs": "\\ud800"}'):
        answer = await http.send("POST", f"/{route}", data=data)
        assert refused(answer, 400, "Validation").startswith("the body is not valid JSON")
    answer = await http.send("POST", f"/{route}", data=b" " * 2_000_001)
    assert refused(answer, 413, "Validation").startswith("length limit exceeded")
    body = json.dumps({"inputs": ADA, "ids": [5], "unknown": 1}).encode()
    for kind in (None, "text/plain"):
        answer = await http.send("POST", f"/{route}", data=body, content_type=kind)
        assert answer.status == 200


async def test_most_texts(http: Client) -> None:
    """128, as on predict_tokens."""
    assert len((await http.post("/tokenize", {"inputs": ["a"] * 128})).json()) == 128
    answer = await http.post("/tokenize", {"inputs": ["a"] * 129})
    assert refused(answer, 413, "Validation") == "batch size 129 > maximum allowed batch size 128"


async def test_texts_that_the_tokenizer_refuses(http: Client) -> None:
    """The library's own sentence, as on predict_tokens."""
    answer = await http.post("/v1/models/picky/tokenize", {"inputs": ["people", "nobody"]})
    assert refused(answer, 422, "Tokenizer").startswith("Tokenization error: ")


ROUTES = [("GET", "info"), ("POST", "tokenize"), ("POST", "decode")]


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_models_that_cannot_answer(http: Client, method: str, route: str) -> None:
    """Unknown, broken, and versions that are not there."""
    data = None if method == "GET" else json.dumps({"inputs": ADA, "ids": [5]}).encode()
    for model, status, kind in (
        ("nope", 404, "Validation"),
        ("broken", 503, "Unhealthy"),
        ("bert/versions/9", 404, "Validation"),
        ("bert/versions/x", 404, "Validation"),
    ):
        answer = await http.send(method, f"/v1/models/{model}/{route}", data=data)
        assert model.split("/")[0] in refused(answer, status, kind)


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_without_a_default_model(
    serve: Serve, repository: Repository, method: str, route: str
) -> None:
    """Several models and none named: the request is told how to name one."""
    repository.add("one")
    repository.add("two")
    http = await serve(repository.path)
    data = None if method == "GET" else json.dumps({"inputs": ADA, "ids": [5]}).encode()
    answer = await http.send(method, f"/{route}", data=data)
    assert "one, two" in refused(answer, 404, "Validation")
    answer = await http.send(method, f"/v1/models/two/{route}", data=data)
    assert (answer.status, answer.headers["x-nerve-model"]) == (200, "two")


@pytest.mark.parametrize(
    ("wrong", "right", "route"),
    [("POST", "GET,HEAD", "info"), ("GET", "POST", "tokenize"), ("GET", "POST", "decode")],
)
async def test_other_methods(http: Client, wrong: str, right: str, route: str) -> None:
    """405 in the dialect's shape."""
    for place in PLACES:
        answer = await http.send(wrong, f"{place}/{route}")
        assert f"use {right}" in refused(answer, 405, "Validation")
        assert answer.headers["Allow"] == right


# --- info


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["", *PREFIXES])
async def test_info(http: Client, bundled: Path, place: str, prefix: str) -> None:
    """TEI's keys, each with what holds for this model."""
    answer = await http.get(f"{prefix}{place}/info")
    assert answer.status == 200
    assert answer.headers["x-nerve-model"] == "minilm-ner"
    config = json.loads((bundled / "minilm-ner" / "1" / "config.json").read_text())
    limits = (await http.get("/v1/models/minilm-ner")).json()["limits"]
    body = answer.json()
    with ThreadPoolExecutor() as pool:  # as asyncio makes it
        assert body.pop("tokenization_workers") == pool._max_workers
    assert body == {
        "model_id": "minilm-ner",
        "model_sha": None,
        "model_dtype": None,
        "model_type": {
            "classifier": {"id2label": config["id2label"], "label2id": config["label2id"]}
        },
        "max_concurrent_requests": limits["max_queue_size"],
        "max_input_length": limits["max_tokens"],
        "max_batch_tokens": limits["max_num_tokens"],
        "max_batch_requests": limits["max_batch_size"],
        "max_client_batch_size": 128,
        "auto_truncate": True,
        "version": nerve.__version__,
        "sha": None,
        "docker_label": None,
    }


async def test_info_of_a_configured_model(serve: Serve, repository: Repository) -> None:
    """Its own limits, the server's, and the precision that it was converted to."""
    repository.add(
        "ner",
        max_batch_size=3,
        max_num_tokens=64,
        dynamic_batching={"max_queue_size": 7},
        tokenizer={"max_length": 24},
        optimization={"precision": "int8"},
    )
    http = await serve(repository.path, max_client_batch_size=5)
    body = (await http.get("/info")).json()
    assert [
        body[f"max_{key}"]
        for key in (
            "batch_requests",
            "batch_tokens",
            "concurrent_requests",
            "input_length",
            "client_batch_size",
        )
    ] == [3, 64, 7, 24, 5]
    assert body["model_dtype"] == "int8"


async def test_info_of_each_version(http: Client) -> None:
    """The highest READY one answers for the model."""
    for path, version in (("multi", "2"), ("multi/versions/1", "1"), ("multi/versions/2", "2")):
        answer = await http.get(f"/v1/models/{path}/info")
        assert (answer.status, answer.headers["x-nerve-model-version"]) == (200, version)


# --- ping


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
async def test_ping(http: Client, prefix: str) -> None:
    """Healthy: nothing to say."""
    answer = await http.get(f"{prefix}/ping")
    assert (answer.status, answer.body) == (200, b"")


async def test_ping_before_the_start_is_over(server_of: ServerOf, repository: Repository) -> None:
    """TEI's own words."""
    repository.add("ner")
    async with (
        server_of(repository.path, started=False) as server,
        server.client() as http,
    ):
        assert refused(await http.get("/ping"), 503, "Unhealthy") == "unhealthy"


# --- what people run


async def test_baseten_performance_client(server: Server, bundled: Path) -> None:
    """Its `batch_post` sends 300 payloads; the answers come back in order."""
    texts = [f"{number} {ADA}" for number in range(300)]
    tokenizer = library(bundled / "minilm-ner" / "1")
    client = PerformanceClient(base_url=server.url, api_key="none")
    answer = await asyncio.to_thread(
        client.batch_post, "/tokenize", [{"inputs": [text]} for text in texts]
    )
    assert [body[0] for body in answer.data] == [expected(tokenizer, text) for text in texts]
    payloads = [{"ids": [each["id"] for each in body[0]]} for body in answer.data]
    decoded = await asyncio.to_thread(client.batch_post, "/decode", payloads)
    assert [body[0] for body in decoded.data] == [
        tokenizer.decode(payload["ids"]) for payload in payloads
    ]


async def test_many_callers_at_once(http: Client, tiny_models: Path) -> None:
    """Small and large requests side by side: each gets its own answer."""
    tokenizer = library(tiny_models / "roberta")
    texts = [f"{number} {TEXTS[number % 8]}" * (1 + number % 3 * 40) for number in range(60)]
    found = await asyncio.gather(*(tokenize(http, "roberta", text) for text in texts))
    assert [each[0] for each in found] == [expected(tokenizer, text) for text in texts]
