"""infer, by every kind of client: both views, every option, every way to write a tensor."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import numpy as np

from clients.triton.client import Client
from clients.triton.methods import RAW
from clients.triton.truth import MODEL, TEXTS, Truth, read, same


def _response(client: Client, result: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (
        result.get_response(as_json=True) if client.grpc else result.get_response()
    )
    return answer


async def check_text(client: Client, truth: Truth) -> None:
    """In binary and in JSON, asked for by name or not, the same entities."""
    ways: list[tuple[bool, list[Any] | None]] = [
        (sent, [client.wanted("ENTITIES", binary=got)] if got is not None else None)
        for sent in (True, False)
        for got in (True, False, None)
    ]
    for sent, outputs in ways:
        result = await client.call(
            "infer", MODEL, client.texts(*TEXTS, binary=sent), outputs=outputs, request_id="r 1"
        )
        assert result.as_numpy("ENTITIES").shape == (len(TEXTS), 1)
        for text, found in zip(TEXTS, read(result), strict=True):
            same(found, truth.entities(text))
            assert [text[e["start"] : e["end"]] for e in found] == [e["text"] for e in found]
        answer = _response(client, result)
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r 1", MODEL, "1")
        assert [each["name"] for each in answer["outputs"]] == ["ENTITIES"]
        assert result.as_numpy("NOPE") is None
    without = _response(client, await client.call("infer", MODEL, client.texts("a"), "1"))
    assert "id" not in without


async def check_shapes(client: Client, truth: Truth) -> None:
    """[n] is taken as [n, 1] and answered as it was asked."""
    flat = client.tensor("TEXT", np.array(TEXTS[:2], dtype=object))
    result = await client.call("infer", MODEL, [flat])
    assert result.as_numpy("ENTITIES").shape == (2,)
    for text, found in zip(TEXTS, read(result), strict=False):
        same(found, truth.entities(text))


async def check_tokens(client: Client, truth: Truth) -> None:
    """LABELS and TOKENS, parallel; outputs come in the order that they were asked in."""
    outputs = [client.wanted(name) for name in ("TOKENS", "ENTITIES", "LABELS")]
    result = await client.call("infer", MODEL, client.texts(*TEXTS), outputs=outputs)
    names = [each["name"] for each in _response(client, result)["outputs"]]
    assert names == ["TOKENS", "ENTITIES", "LABELS"]
    request = urllib.request.Request(
        f"{truth.url}/v1/models/{MODEL}/predict",
        data=json.dumps({"inputs": TEXTS}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        expected = [each["tokens"] for each in json.load(answer)["results"]]
    found = zip(TEXTS, read(result, "TOKENS"), read(result, "LABELS"), expected, strict=True)
    for text, tokens, labels, theirs in found:
        assert labels == [each["label"] for each in theirs]
        assert [t["token_id"] for t in tokens] == [e["token_info"]["token_id"] for e in theirs]
        starts = [len(text.encode()[: each["token_info"]["start"]].decode()) for each in theirs]
        assert [each["start"] for each in tokens] == starts
        assert all(set(each) == {"token", "token_id", "start", "end"} for each in tokens)


async def check_options(client: Client, truth: Truth) -> None:
    """Request parameters change what is answered, for all texts of the request."""

    async def asked(**parameters: Any) -> list[Any]:
        result = await client.call("infer", MODEL, client.texts(*TEXTS), parameters=parameters)
        return read(result)

    for strategy in ("simple", "first", "average", "max"):
        for text, found in zip(TEXTS, await asked(aggregation=strategy), strict=True):
            same(found, truth.entities(text, strategy))
    scores = sorted(e["score"] for text in TEXTS for e in truth.entities(text))
    assert len(scores) > 3
    least = scores[len(scores) // 2]
    for text, found in zip(TEXTS, await asked(threshold=float(least)), strict=True):
        same(found, [e for e in truth.entities(text) if e["score"] >= least])
    for text, found in zip(TEXTS, await asked(labels="PER,ORG"), strict=True):
        same(found, [e for e in truth.entities(text) if e["label"] in {"PER", "ORG"}])
    for text, found in zip(TEXTS, await asked(offset_unit="byte"), strict=True):
        assert [text.encode()[e["start"] : e["end"]].decode() for e in found] == [
            e["text"] for e in truth.entities(text)
        ]
    long = f"{TEXTS[0]} {'It is very far. ' * 200} {TEXTS[4]}"
    ends = {}
    for side in ("right", "left"):
        parameters = {"truncate": True, "truncation_side": side}
        result = await client.call("infer", MODEL, client.texts(long), parameters=parameters)
        (ends[side],) = read(result)
        same(ends[side], truth.entities(long, truncate=True, truncation_direction=side))
    assert {e["text"] for e in ends["right"]}.isdisjoint(e["text"] for e in ends["left"])
    uncut: dict[str, Any] = {
        "parameters": {"truncate": False},
        "http": 400,
        "grpc": "INVALID_ARGUMENT",
    }
    await client.refused("infer", MODEL, client.texts(long), **uncut)


async def check_priority_and_timeout(client: Client, truth: Truth) -> None:
    for priority in (0, 1, 10):
        result = await client.call(
            "infer", MODEL, client.texts(TEXTS[0]), priority=priority, timeout=20_000_000
        )
        same(read(result)[0], truth.entities(TEXTS[0]))


async def check_compression(client: Client, truth: Truth) -> None:
    ways: list[dict[str, str | None]]
    if client.grpc:
        ways = [{"compression_algorithm": kind} for kind in ("gzip", "deflate")]
    else:
        sent, got = "request_compression_algorithm", "response_compression_algorithm"
        kinds = (None, "gzip", "deflate")
        ways = [{sent: one, got: other} for one in kinds for other in kinds if one or other]
    for way in ways:
        for binary in (True, False):
            inputs = client.texts(*TEXTS, binary=binary)
            outputs = [client.wanted("ENTITIES", binary=binary)]
            result = await client.call("infer", MODEL, inputs, outputs=outputs, **way)
            for text, found in zip(TEXTS, read(result), strict=True):
                same(found, truth.entities(text))


async def check_largest_batch(client: Client, truth: Truth) -> None:
    """As many texts as the config allows are answered in order."""
    told = await client.told("get_model_config", MODEL)
    size = int((told["config"] if client.grpc else told)["max_batch_size"])
    texts = [TEXTS[number % len(TEXTS)] for number in range(size)]
    result = await client.call("infer", MODEL, client.texts(*texts))
    for text, found in zip(texts, read(result), strict=True):
        same(found, truth.entities(text))


async def check_raw(client: Client, truth: Truth) -> None:
    """Logits of token ids, in binary and in JSON, with the masks or without."""
    told = await client.told("get_model_metadata", RAW)
    segments = any(each["name"] == "token_type_ids" for each in told["inputs"])
    for binary in (True, False):
        for text in TEXTS:
            ids = truth.ids(text)
            inputs = [client.tensor("input_ids", ids, binary=binary)]
            more = [client.tensor("attention_mask", np.ones_like(ids), binary=binary)]
            if segments:
                more.append(client.tensor("token_type_ids", np.zeros_like(ids), binary=binary))
            for asked in (inputs, inputs + more, more + inputs):
                outputs = [client.wanted("logits", binary=binary)]
                result = await client.call("infer", RAW, asked, outputs=outputs)
                logits = result.as_numpy("logits")
                assert (logits.dtype, logits.shape) == (np.float32, (*ids.shape, 9))
                np.testing.assert_allclose(logits, truth.logits(text), rtol=0, atol=1e-4)


async def check_raw_batch(client: Client, truth: Truth) -> None:
    """Rows of one request that the client has padded."""
    each = [truth.ids(text)[0] for text in TEXTS]
    ids = np.zeros((len(each), max(map(len, each))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, known in enumerate(each):
        ids[row, : len(known)], mask[row, : len(known)] = known, 1
    inputs = [client.tensor("input_ids", ids), client.tensor("attention_mask", mask)]
    result = await client.call("infer", RAW, inputs)
    logits = result.as_numpy("logits")
    assert logits.shape == (*ids.shape, 9)
    for row, text in enumerate(TEXTS):
        expected = truth.logits(text)[0]
        np.testing.assert_allclose(logits[row, : len(expected)], expected, rtol=0, atol=1e-4)


CHECKS = (
    check_text,
    check_shapes,
    check_tokens,
    check_options,
    check_priority_and_timeout,
    check_compression,
    check_largest_batch,
    check_raw,
    check_raw_batch,
)
