"""Bad input gets a clear error in the dialect's shape, and the next request works (issue 2)."""

from __future__ import annotations

import functools
import gzip
import http.client
import json
import logging
import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from nerve.errors import InvalidField
from nerve.frontend.http.baseten import PredictTokensRequest
from nerve.frontend.http.bei import DecodeRequest, TokenizeRequest
from nerve.frontend.http.body import check
from nerve.frontend.http.encoderfile import TokenClassificationRequest
from nerve.frontend.http.openinference.schemas import (
    ModelLoadRequest,
    ModelUnloadRequest,
    RepositoryIndexRequest,
)
from nerve.frontend.mcp import extract_entities, run_encoder

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Repository, Serve, Server

GOOD = b'{"inputs":["people"]}'
LIMITS = {"predict": 2_097_152, "predict_tokens": 2_000_000}
KINDS = {"Validation", "Tokenizer", "Empty", "Overloaded", "Backend", "Unhealthy"}
STATUSES = {200, 400, 404, 408, 413, 415, 422, 424, 429, 500, 503, 504}
DEEP = 100_000
REQUESTS = [
    DecodeRequest,
    ModelLoadRequest,
    ModelUnloadRequest,
    PredictTokensRequest,
    RepositoryIndexRequest,
    TokenClassificationRequest,
    TokenizeRequest,
    extract_entities.Arguments,
    run_encoder.Arguments,
]

dialects = pytest.mark.parametrize("route", ["predict", "predict_tokens"])


def check_error(route: str, answer: Answer) -> str:
    """An error has the shape of its dialect; its sentence comes back."""
    if route == "predict":
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8", answer
        sentence = answer.text
    else:
        assert answer.headers["Content-Type"] == "application/json", answer
        body = answer.json()
        assert list(body) == ["error", "error_type"]
        assert body["error_type"] in KINDS
        sentence = body["error"]
    assert 0 < len(sentence) < 10_000, answer
    assert "Traceback" not in sentence
    return str(sentence)


async def check_good(http: Client, route: str) -> None:
    """The next request works, on the same connection where the server kept it."""
    answer = await http.send("POST", f"/{route}", data=GOOD)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"


class Bad(NamedTuple):
    """A body, and its status on each route: one, or several where no contract decides."""

    name: str
    body: bytes
    predict: tuple[int, ...]
    tokens: tuple[int, ...]
    says: str = ""
    """What the sentence must hold: the field, where there is one."""


def bad(
    name: str,
    body: bytes | str,
    predict: int | tuple[int, ...],
    tokens: int | tuple[int, ...] | None = None,
    says: str = "",
) -> Any:
    """A case; a single status counts for both routes."""
    first = (predict,) if isinstance(predict, int) else predict
    second = (tokens,) if isinstance(tokens, int) else tokens
    sent = body.encode() if isinstance(body, str) else body
    return pytest.param(Bad(name, sent, first, second or first, says), id=name)


CASES = [
    # no JSON
    bad("empty", "", 400),
    bad("space", "  \n", 400),
    bad("word", "hello", 400),
    bad("form", "inputs=people", 400),
    bad("cut short", '{"inputs":["people"', 400),
    bad("trailing comma", '{"inputs":["people",]}', 400),
    bad("trailing text", '{"inputs":["people"]} x', 400),
    bad("two documents", '{"inputs":["people"]}{"inputs":["people"]}', 400),
    bad("single quotes", "{'inputs':['people']}", 400),
    bad("comment", '{"inputs":["people"]/* */}', 400),
    bad("bad escape", '{"inputs":["\\x41"]}', 400),
    bad("raw newline", '{"inputs":["a\nb"]}', 400),
    bad("raw NUL", b'{"inputs":["a\x00b"]}', 400),
    bad("NaN", '{"inputs":["people"],"x":NaN}', 400),
    bad("Infinity", '{"inputs":["people"],"x":-Infinity}', 400),
    bad("leading zero", '{"inputs":["people"],"x":01}', 400),
    bad("BOM", b'\xef\xbb\xbf{"inputs":["people"]}', 400),
    bad("UTF-16", '{"inputs":["people"]}'.encode("utf-16"), 400),
    bad("UTF-32", '{"inputs":["people"]}'.encode("utf-32"), 400),
    bad("Latin-1", '{"inputs":["café"]}'.encode("latin-1"), 400),
    bad("invalid UTF-8", b'{"inputs":["\xff\xfe"]}', 400),
    bad("overlong UTF-8", b'{"inputs":["\xc0\xaf"]}', 400),
    bad("UTF-8 cut short", b'{"inputs":["\xe6\x9d"]}', 400),
    bad("UTF-8 surrogate", b'{"inputs":["\xed\xa0\xbd\xed\xb8\x80"]}', 400),
    bad("invalid UTF-8 in a key", b'{"inputs":["people"],"\xff":1}', 400),
    bad("lone high surrogate", '{"inputs":["\\ud83d"]}', 400),
    bad("lone low surrogate", '{"inputs":["\\ude00 x"]}', 400),
    bad("surrogates swapped", '{"inputs":["\\ude00\\ud83d"]}', 400),
    bad("lone surrogate elsewhere", '{"inputs":["people"],"x":"\\udfff"}', 400),
    bad("deep list", b"[" * DEEP + b"]" * DEEP, 400),
    bad("deep list, open", b"[" * DEEP, 400),
    bad("deep object", b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400),
    bad("deep inputs", b'{"inputs":' + b"[" * DEEP + b"]" * DEEP + b"}", 400),
    bad("gzip without saying so", gzip.compress(GOOD), 400),
    # JSON, but not what is asked for
    bad("null", "null", 422),
    bad("true", "true", 422),
    bad("number", "42", 422),
    bad("string", '"people"', 422),
    bad("empty list", "[]", 422),
    bad("empty object", "{}", 422, says="inputs"),
    bad("wrong key", '{"input":["people"]}', 422, says="inputs"),
    bad("key in another case", '{"Inputs":["people"]}', 422, says="inputs"),
    bad("inputs null", '{"inputs":null}', 422, says="inputs"),
    bad("inputs number", '{"inputs":1}', 422, says="inputs"),
    bad("inputs float", '{"inputs":1.5}', 422, says="inputs"),
    bad("inputs bool", '{"inputs":false}', 422, says="inputs"),
    bad("inputs object", '{"inputs":{"text":"people"}}', 422, says="inputs"),
    bad("inputs of numbers", '{"inputs":[1,2]}', 422, says="inputs"),
    bad("inputs of nulls", '{"inputs":[null]}', 422, says="inputs"),
    bad("inputs of objects", '{"inputs":[{"text":"people"}]}', 422, says="inputs"),
    bad("one wrong of many", '{"inputs":["people",7,"world"]}', 422, says="[1]"),
    bad("lists in lists in lists", '{"inputs":[[["people"]]]}', 422, says="inputs"),
    bad("list of lists of numbers", '{"inputs":[[1]]}', 422, says="inputs"),
    bad("nested to the parser's limit", b'{"inputs":' + b"[" * 1000 + b"]" * 1000 + b"}", (400, 422)),
    bad("no text", '{"inputs":[]}', 422, 400),
    bad("empty text", '{"inputs":[""]}', 422, 400),
    bad("one empty text of many", '{"inputs":["people","","world"]}', 422, 400),
    bad("huge number as text", '{"inputs":[1e400]}', (400, 422)),
    bad("huge integer as text", '{"inputs":[' + "9" * 6000 + "]}", (400, 422)),
    bad("huge number elsewhere", '{"inputs":["people"],"x":1e400}', (200, 400)),
    bad("huge integer elsewhere", '{"inputs":["people"],"x":' + "9" * 6000 + "}", (200, 400)),
    bad("repeated key", '{"inputs":["people"],"inputs":["world"]}', 422, (200, 422)),
    bad("repeated key, then deep", (
        b'{"inputs":["people"],"x":' + b"[" * 1010 + b"]" * 1010 + b',"inputs":["world"]}'
    ), (400, 422), (200, 400, 422)),
    bad("repeated key, then deep objects", (
        b'{"inputs":["a"],"x":' + b'{"a":' * 1010 + b"1" + b"}" * 1010 + b',"inputs":["b"]}'
    ), (400, 422), (200, 400, 422)),
    bad("repeated key, then a long integer", (
        '{"inputs":["a"],"x":-' + "1" * 300 + ',"y":' + "0." + "1" * 5000 + ',"inputs":["b"]}'
    ), (400, 422), (200, 400, 422)),
    bad("too many inputs", json.dumps({"inputs": ["people"] * 1025}), 413, says="1025"),
    bad("many more inputs", json.dumps({"inputs": ["people"] * 100_000}), 413, says="100000"),
    bad("10 MB text", b'{"inputs":["' + b"people " * 1_430_000 + b'"]}', 413),
    bad("10 MB of brackets", b"[" * 10_000_000, 413),
    # all right, though it looks odd
    bad("NUL in a text", '{"inputs":["a\\u0000b \\u0000"]}', 200),
    bad("only NUL", '{"inputs":["\\u0000"]}', 200),
    bad("control characters", '{"inputs":["\\u0001\\u001f\\u007f\\u0085"]}', 200),
    bad("noncharacters", '{"inputs":["\\uffff\\ufffe \\ufdd0"]}', 200),
    bad("escaped pair", '{"inputs":["\\ud83d\\ude00"]}', 200),
    bad("marks without a letter", json.dumps({"inputs": ["\u0301" * 500]}), 200),
    bad("one word of a megabyte", json.dumps({"inputs": ["x" * 1_500_000]}), 200),
    bad("a megabyte of blanks", json.dumps({"inputs": [" " * 1_500_000]}), 200),
    bad("a megabyte of emoji", json.dumps({"inputs": ["🚀" * 300_000]}, ensure_ascii=False), 200),
    bad("right to left", json.dumps({"inputs": ["\u202eabc\u202c שלום عالم"]}), 200),
]  # fmt: skip


@dialects
@pytest.mark.parametrize("case", CASES)
async def test_body(http: Client, route: str, case: Bad) -> None:
    """The body's status and shape, and a good request after it."""
    answer = await http.send("POST", f"/{route}", data=case.body)
    assert answer.status in (case.predict if route == "predict" else case.tokens), answer
    if answer.status != 200:
        assert case.says in check_error(route, answer)
    await check_good(http, route)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"aggregation_strategy": "mean"}, "aggregation_strategy"),
        ({"aggregation_strategy": None, "truncation_direction": None}, "truncation_direction"),
        ({"truncate": "false"}, "truncate"),
        ({"raw_scores": 1}, "raw_scores"),
        ({"ignore_labels": {"O": True}}, "ignore_labels"),
        ({"ignore_labels": ["O", None]}, "ignore_labels[1]"),
        ({"offset_unit": "words"}, "offset_unit"),
        ({"offset_unit": ["byte"]}, "offset_unit"),
        ({"threshold": True}, "threshold: input should be a valid number, got true"),
        ({"labels": [False]}, "labels[0]: input should be a valid string, got false"),
        ({"aggregation_strategy": "x" * 100_000}, "aggregation_strategy"),
    ],
)
async def test_field_is_named(http: Client, fields: dict[str, object], field: str) -> None:
    """Unknown words and wrong types, with the field's path, in a short sentence."""
    answer = await http.post("/predict_tokens", {"inputs": ["people"]} | fields)
    assert answer.status == 422
    assert check_error("predict_tokens", answer).startswith(field)
    await check_good(http, "predict_tokens")


@pytest.mark.parametrize(
    "model", REQUESTS, ids=lambda model: f"{model.__module__}.{model.__name__}"
)
def test_few_faults_are_collected(model: type[BaseModel]) -> None:
    """Only the first one is told: a body of a million wrong items must not make a million errors."""
    many = 1000
    wrong: list[object] = [[{}] * many, {str(number): {} for number in range(many)}, [5] * many]
    values: list[dict[str, object]] = [
        {name: each} for name in model.model_fields for each in wrong
    ]
    collected = 0
    for value in [*values, dict.fromkeys(map(str, range(many)))]:
        try:
            check(value, model)
        except InvalidField as error:
            cause = error.__context__
            assert isinstance(cause, ValidationError)
            assert cause.error_count() <= len(model.model_fields) + 1
            collected += 1
    assert collected


def test_first_fault_is_told() -> None:
    """The same one as if all had been collected."""
    for metadata, field in (
        ({"a": "", "b": 1, "c": [], "d": ""}, "metadata.b: input should be a valid string, got 1"),
        ({"a": "", "b": {}}, "metadata.b: input should be a valid string, got an object"),
    ):
        with pytest.raises(InvalidField) as refused:
            check({"inputs": ["a"], "metadata": metadata}, TokenClassificationRequest)
        assert str(refused.value) == field
    for value, field in (
        ({"x": 1, "y": 2}, "x: extra inputs are not permitted, got 1"),
        ({"x": 1, "parameters": 2}, "parameters: expected a JSON object, got a number"),
    ):
        with pytest.raises(InvalidField) as refused:
            check(value, ModelLoadRequest)
        assert str(refused.value) == field


# --- sizes


async def pieces(size: int) -> AsyncIterator[bytes]:
    """A body of blanks, sent in chunks; its length is not told."""
    sent = 0
    while sent < size:
        yield b" " * min(65536, size - sent)
        sent += 65536


@dialects
async def test_body_over_the_limit_by_its_length(server: Server, route: str) -> None:
    """413 from the head alone: nothing of the body has been sent."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (route.encode(), LIMITS[route] + 1)
        )
        answer = await wire.answer()
        assert answer.status == 413
        check_error(route, answer)
    async with server.client() as http:
        await check_good(http, route)


@dialects
async def test_body_over_the_limit_in_chunks(http: Client, route: str) -> None:
    """413 although no length was told; a body of just the limit is read."""
    answer = await http.send("POST", f"/{route}", data=pieces(LIMITS[route] + 1))
    assert answer.status == 413
    check_error(route, answer)
    await check_good(http, route)
    answer = await http.send("POST", f"/{route}", data=pieces(LIMITS[route]))
    assert answer.status == 400
    check_error(route, answer)


@dialects
async def test_endless_body(server: Server, route: str) -> None:
    """A client that never stops sending gets its answer nevertheless."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" % route.encode()
        )
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(LIMITS[route] // 65536 + 1):
            await wire.send(chunk)
        answer = await wire.answer()
    assert answer.status == 413
    check_error(route, answer)


@dialects
async def test_expect_continue(server: Server, route: str) -> None:
    """curl asks before it sends a large body."""
    head = (
        b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    async with server.wire() as wire:
        await wire.send(head % (route.encode(), len(GOOD)))
        assert (await wire.answer()).status == 100
        await wire.send(GOOD)
        assert (await wire.answer()).status == 200


# --- compression


@dialects
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_body(http: Client, route: str, encoding: str) -> None:
    """Is read."""
    data = gzip.compress(GOOD) if encoding == "gzip" else zlib.compress(GOOD)
    answer = await http.send("POST", f"/{route}", data=data, headers={"Content-Encoding": encoding})
    assert answer.status == 200


@dialects
@pytest.mark.parametrize(
    "data",
    [
        b"this is no gzip",
        GOOD,
        b"\x1f\x8b\x08\x00garbage garbage garbage",
        gzip.compress(GOOD)[:-12],
        gzip.compress(json.dumps({"inputs": [str(n) for n in range(5000)]}).encode())[:5000],
        gzip.compress(GOOD)[:-8] + b"\0" * 8,
    ],
    ids=["no gzip", "plain", "garbage", "without its end", "half of it", "wrong checksum"],
)
async def test_broken_compression(http: Client, route: str, data: bytes) -> None:
    """400, and it says what is wrong."""
    answer = await http.send("POST", f"/{route}", data=data, headers={"Content-Encoding": "gzip"})
    assert answer.status == 400
    check_error(route, answer)
    await check_good(http, route)


@dialects
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, deflate"])
async def test_unknown_compression(http: Client, route: str, encoding: str) -> None:
    """415 in the dialect's shape, whatever the HTTP library could read."""
    answer = await http.send("POST", f"/{route}", data=GOOD, headers={"Content-Encoding": encoding})
    assert answer.status == 415
    assert "Content-Encoding" in check_error(route, answer)
    await check_good(http, route)


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b'{"inputs":["' + b" " * 200_000_000 + b'"]}', compresslevel=9)


@dialects
async def test_gzip_bomb(http: Client, route: str) -> None:
    """A small body that grows over the limit: 413 as a large one."""
    data = _bomb()
    assert len(data) < LIMITS[route]
    answer = await http.send("POST", f"/{route}", data=data, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413
    check_error(route, answer)
    await check_good(http, route)


@dialects
async def test_gzip_just_over_the_limit(http: Client, route: str) -> None:
    """The limit counts bytes after decompression, exactly."""
    for size, status in ((LIMITS[route], 200), (LIMITS[route] + 1, 413)):
        data = gzip.compress(GOOD.ljust(size))
        answer = await http.send(
            "POST", f"/{route}", data=data, headers={"Content-Encoding": "gzip"}
        )
        assert answer.status == status


# --- slow and broken clients


@dialects
@pytest.mark.parametrize("chunked", [False, True])
async def test_slow_body(serve: Serve, repository: Repository, route: str, chunked: bool) -> None:
    """408 in the dialect's shape when the rest does not come."""
    repository.add("bert")
    http = await serve(repository.path, body_timeout_s=0.3)
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % route.encode()
    start = b"Transfer-Encoding: chunked\r\n\r\n5\r\n" if chunked else b"Content-Length: 21\r\n\r\n"
    async with http.server.wire() as wire:
        await wire.send(head + start + b'{"inp')
        answer = await wire.answer()
        assert answer.status == 408
        assert "0.3 s" in check_error(route, answer)
    await check_good(http, route)


async def test_refused_body_ends_the_connection(server: Server) -> None:
    """What is left of a refused body cannot be told from a next request."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 3000000\r\n\r\n"
        )
        answer = await wire.answer()
        assert answer.status == 413
        assert answer.headers["Connection"] == "close"
        wire.writer.write_eof()  # else the server waits a while, that the answer may be read
        assert await wire.closed()


@dialects
async def test_body_byte_by_byte(server: Server, route: str) -> None:
    """Many small pieces make one body."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (route.encode(), len(GOOD))
        )
        for number in GOOD:
            await wire.send(bytes([number]))
        assert (await wire.answer()).status == 200


@dialects
@pytest.mark.parametrize("sent", [0, 1, 10, 20])
async def test_half_a_body_then_gone(server: Server, route: str, sent: int) -> None:
    """The server goes on; the request never counts as one that failed here."""
    async with server.client() as http:
        name, dialect = "nerve_requests_total", {"predict": "encoderfile"}.get(route, "baseten")
        failed = await http.metric(name, dialect=dialect, status="500")
        for _ in range(3):
            async with server.wire() as wire:
                await wire.send(
                    b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % (route.encode(), len(GOOD)) + GOOD[:sent]
                )
        await check_good(http, route)
        assert await http.metric(name, dialect=dialect, status="500") == failed


@dialects
async def test_half_a_body_then_end(server: Server, route: str) -> None:
    """A client that closes only its side is not left waiting."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (route.encode(), len(GOOD)) + GOOD[:10]
        )
        wire.writer.write_eof()
        rest = await wire.rest()
    assert b" 500 " not in rest.split(b"\r\n")[0]
    async with server.client() as http:
        await check_good(http, route)


@dialects
async def test_broken_chunks(server: Server, route: str) -> None:
    """400 for a chunk size that is none."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" % route.encode()
        )
        rest = await wire.rest()
    assert rest.split(b"\r\n")[0].split(b" ")[1] == b"400"
    async with server.client() as http:
        await check_good(http, route)


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /predict HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /predict\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        *("no HTTP", "TLS", "version", "no version", "header", "negative length", "length"),
        *("two lengths", "long header", "long path", "HTTP/2"),
    ],
)
async def test_no_http(server: Server, request_: bytes) -> None:
    """Refused with a 4xx or by hanging up, never with a 500; the server goes on."""
    async with server.wire() as wire:
        await wire.send(request_)
        rest = await wire.rest()
    line = rest.split(b"\r\n")[0]
    assert line == b"" or line.split(b" ")[1][:1] == b"4", line
    async with server.client() as http:
        await check_good(http, "predict")


@dialects
async def test_http_1_0(server: Server, route: str) -> None:
    """Old clients get their answer, then the connection ends."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /%s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (route.encode(), len(GOOD), GOOD)
        )
        assert (await wire.answer()).status == 200
        assert await wire.closed()


@dialects
async def test_two_requests_at_once(server: Server, route: str) -> None:
    """Pipelined: a bad one and a good one on one connection, answered in order."""
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    both = [
        head % route.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        for body in (b"{}", GOOD)
    ]
    async with server.wire() as wire:
        await wire.send(b"".join(both))
        assert (await wire.answer()).status == 422
        assert (await wire.answer()).status == 200


# --- names and versions in the path


@dialects
@pytest.mark.parametrize(
    "name",
    [
        "%ff",
        "%00",
        "%c3%28",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "a%0d%0aX-Injected:%201",
        "%f0%9f%9a%80",
        "%u0041",
        "%",
        "x" * 5000,
        "x" * 10_000,
        "%20",
        "*",
        "bert%00",
        "a%22%3cscript%3e",
    ],
)
async def test_odd_model_names(server: Server, route: str, name: str) -> None:
    """404 (or 400 where it is no URL), in a short answer without the name's line breaks."""
    async with server.wire() as wire:
        await wire.send(
            b"POST /v1/models/%s/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (name.encode(), route.encode(), len(GOOD), GOOD)
        )
        rest = await wire.rest()
    status = int(rest.split(b"\r\n")[0].split(b" ")[1])
    assert status in ({400, 404, 414} if len(name) > 8000 or "%" in name else {404}), rest
    assert b"\nX-Injected" not in rest
    assert len(rest) < 20_000
    async with server.client() as http:
        await check_good(http, route)


@pytest.mark.parametrize("name", ["a%0d%0ab", "%f0%9f%9a%80", "%00", "%1b%5b31m"])
async def test_name_comes_back_readable(http: Client, name: str) -> None:
    """The sentence shows the name escaped."""
    answer = await http.send("POST", f"/v1/models/{name}/predict", data=GOOD)
    assert answer.status == 404
    sentence = check_error("predict", answer)
    assert sentence.isprintable()


@dialects
@pytest.mark.parametrize(
    "version",
    [
        *("01", "-1", "+1", "1.0", "0", "1_0", "0x1", "1e0", "%201", "1%20"),
        *("%d9%a3", "%d9%a1", "%c2%b9", "%ef%bc%91", "%e2%91%a0"),
        *("99999999999999999999", "9" * 5000, "%ff", "..", "latest", "1%00"),
    ],
)
async def test_odd_versions(http: Client, route: str, version: str) -> None:
    """404: a version is a whole number from 1 on, as its folder is written."""
    path = f"/v1/models/minilm-ner/versions/{version}/{route}"
    answer = await http.send("POST", path, data=GOOD)
    assert answer.status == 404, answer
    if version != "..":  # the client's or server's URL rules make another path of it
        check_error(route, answer)
    await check_good(http, route)


async def test_escaped_version(http: Client) -> None:
    """%31 is 1, as in every URL."""
    path = "/v1/models/minilm-ner/versions/%31/predict"
    assert (await http.send("POST", path, data=GOOD)).status == 200


# --- anything at all

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.text(alphabet=st.characters(), max_size=10)  # surrogates, too
    | st.sampled_from(["", " ", "people", "german israel", "none", "max", "Left", "O", "\x00"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXTS = st.text(max_size=30)
FIELDS = {
    "metadata": VALUES | st.dictionaries(TEXTS, TEXTS, max_size=3),
    "truncate": VALUES | st.booleans(),
    "truncation_direction": VALUES | st.sampled_from(["Left", "left", "Right", "right"]),
    "raw_scores": VALUES | st.booleans(),
    "aggregation_strategy": VALUES | st.sampled_from(["none", "simple", "first", "average", "max"]),
    "ignore_labels": VALUES | st.lists(st.sampled_from(["O", "PER", "B-PER"]), max_size=3),
    "offset_unit": VALUES | st.sampled_from(["byte", "codepoint", "utf16"]),
}
INPUTS = VALUES | st.lists(TEXTS, max_size=4) | st.lists(st.lists(TEXTS, max_size=2), max_size=3)
BODIES = VALUES | st.fixed_dictionaries({"inputs": INPUTS}, optional=FIELDS)


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, str, bytes]:
    """One request on a kept connection: status, content type, body."""
    connection.request("POST", path, body=body, headers={"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.headers["Content-Type"], response.read()


def check_anything(
    connection: http.client.HTTPConnection, route: str, body: bytes
) -> tuple[int, Any]:
    """Documented status, right shape, no 500; the parsed answer comes back."""
    status, kind, data = post(connection, f"/v1/models/bert/{route}", body)
    assert status in STATUSES - {500, 503, 504, 408, 424, 429}, (status, data)
    if status == 200 or route == "predict_tokens":
        assert kind == "application/json"
        parsed = json.loads(data)
        if status != 200:
            assert list(parsed) == ["error", "error_type"]
            assert parsed["error_type"] in KINDS
        return status, parsed
    assert kind == "text/plain; charset=utf-8"
    assert data.decode()
    return status, None


def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing went wrong in the server that it had to log."""
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


@dialects
def test_any_json(server: Server, caplog: pytest.LogCaptureFixture, route: str) -> None:
    """Arbitrary JSON: an answer with one entry a text, or an error that is documented."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    seen = set()

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(value=BODIES)
    def fuzz(value: Any) -> None:
        status, parsed = check_anything(connection, route, json.dumps(value).encode())
        seen.add(status)
        if status == 200 and route == "predict":
            texts = value["inputs"] if isinstance(value, dict) else value[0]
            assert len(parsed["results"]) == len(texts)
        elif status == 200:
            inputs = [value["inputs"]] if isinstance(value["inputs"], str) else value["inputs"]
            texts = [t for each in inputs for t in (each if isinstance(each, list) else [each])]
            assert len(parsed) == len(texts)
            unit = value.get("offset_unit")
            for text, items in zip(texts, parsed, strict=True):
                for item in items:
                    if unit in (None, "codepoint"):
                        assert item["token"] == text[item["start"] : item["end"]]

    try:
        fuzz()
    finally:
        connection.close()
    assert {200, 422} <= seen
    quiet(caplog)


@dialects
def test_any_bytes(server: Server, caplog: pytest.LogCaptureFixture, route: str) -> None:
    """Arbitrary bytes, and good bodies with some bytes changed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    whole = '{"inputs":["Zoë 🚀 \\u00e9","people"],"metadata":{"k":"v"},"truncate":true}'.encode()
    changed = st.tuples(st.integers(0, len(whole) - 1), st.binary(max_size=3)).map(
        lambda edit: whole[: edit[0]] + edit[1] + whole[edit[0] + 1 :]
    )

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(body=st.binary(max_size=60) | changed)
    def fuzz(body: bytes) -> None:
        check_anything(connection, route, body)

    try:
        fuzz()
    finally:
        connection.close()
    quiet(caplog)


@dialects
def test_any_text(server: Server, caplog: pytest.LogCaptureFixture, route: str) -> None:
    """Arbitrary text of any script goes through every family of tokenizers: always 200."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    families = ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2"]
    text = st.text(min_size=1, max_size=60)

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(texts=st.lists(text, min_size=1, max_size=4), family=st.sampled_from(families))
    def fuzz(texts: list[str], family: str) -> None:
        value = {"inputs": texts, "ignore_labels": [], "aggregation_strategy": "simple"}
        body = json.dumps(value).encode()
        status, _, data = post(connection, f"/v1/models/{family}/{route}", body)
        assert status == 200, data
        parsed = json.loads(data)
        found = parsed["results"] if route == "predict" else parsed
        assert len(found) == len(texts)
        for given_, result in zip(texts, found, strict=True):
            encoded = given_.encode()
            if route == "predict":
                for token in result["tokens"]:
                    info = token["token_info"]
                    encoded[info["start"] : info["end"]].decode()
            else:
                for item in result:
                    assert item["token"] == given_[item["start"] : item["end"]]

    try:
        fuzz()
    finally:
        connection.close()
    quiet(caplog)
