"""Every way to ask the daemon for entities, each as a function from texts to the same values."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
import numpy as np
from baseten_performance_client import PerformanceClient
from nerve_client import AsyncClient, Client

from clients.door_values import (
    BATCH,
    MODEL,
    Entities,
    Entity,
    Texts,
    javascript_client,
    parts,
    post,
)
from grpc_calls import calling
from nerve._proto.inference import inference_pb2 as v2
from nerve._proto.nerve.v1 import nerve_pb2 as nerve
from support import Daemon

V2: Final = "inference.GRPCInferenceService"


def _named(found: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Of {"text", "label", "start", "end", "score"}."""
    return [
        Entity(e["label"], e["start"], e["end"], e["text"], np.float32(e["score"])) for e in found
    ]


def _aggregated(found: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Of predict_tokens."""
    return [
        Entity(label, e["start"], e["end"], e["token"], np.float32(score))
        for e in found
        for label, score in e["results"].items()
    ]


def _attributes(found: Sequence[Any]) -> list[Entity]:
    """Of objects or messages."""
    return [Entity(e.label, e.start, e.end, e.text, np.float32(e.score)) for e in found]


async def predict_tokens(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    for part in parts(texts):
        body = {"inputs": part, "aggregation_strategy": "simple"}
        found += map(_aggregated, await post(daemon, "/predict_tokens", body))
    return found


async def baseten_client(daemon: Daemon, texts: Texts) -> Entities:
    client = PerformanceClient(base_url=daemon.url, api_key="unused")
    payloads = [{"inputs": [[text]], "aggregation_strategy": "simple"} for text in texts]
    answer = await asyncio.to_thread(client.batch_post, "/predict_tokens", payloads)
    return [_aggregated(body[0]) for body in answer.data]


async def v2_json(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    for part in parts(texts):
        tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [len(part), 1], "data": part}
        answer = await post(daemon, f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
        found += [_named(json.loads(each)) for each in answer["outputs"][0]["data"]]
    return found


async def v2_binary(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    async with aiohttp.ClientSession(daemon.url) as http:
        for part in parts(texts):
            blob = _framed(part)
            size = {"binary_data_size": len(blob)}
            tensor = {
                "name": "TEXT",
                "datatype": "BYTES",
                "shape": [len(part), 1],
                "parameters": size,
            }
            wanted = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
            head = json.dumps(wanted).encode()
            headers = {"Inference-Header-Content-Length": str(len(head))}
            path = f"/v2/models/{MODEL}/infer"
            async with http.post(path, data=head + blob, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                length = int(answer.headers["Inference-Header-Content-Length"])
                body = await answer.read()
            (output,) = json.loads(body[:length])["outputs"]
            assert output["parameters"]["binary_data_size"] == len(body) - length
            found += [_named(json.loads(each)) for each in _unframed(body[length:])]
    return found


async def v2_raw_body(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    async with aiohttp.ClientSession(daemon.url) as http:
        for text in texts:
            path, headers = f"/v2/models/{MODEL}/infer", {"Inference-Header-Content-Length": "0"}
            async with http.post(path, data=text.encode(), headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                length = int(answer.headers["Inference-Header-Content-Length"])
                (document,) = _unframed((await answer.read())[length:])
            found.append(_named(json.loads(document)))
    return found


async def v2_generate(daemon: Daemon, texts: Texts) -> Entities:
    path = f"/v2/models/{MODEL}/generate"
    answers = [await post(daemon, path, {"TEXT": text}) for text in texts]
    return [_named(json.loads(answer["ENTITIES"])) for answer in answers]


def _framed(texts: Texts) -> bytes:
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))


def _unframed(blob: bytes) -> Iterator[bytes]:
    while blob:
        (size,) = struct.unpack_from("<I", blob)
        yield blob[4 : 4 + size]
        blob = blob[4 + size :]


def _infer(part: Texts) -> v2.ModelInferRequest:
    tensor = v2.ModelInferRequest.InferInputTensor(
        name="TEXT", datatype="BYTES", shape=[len(part), 1]
    )
    return v2.ModelInferRequest(
        model_name=MODEL, inputs=[tensor], raw_input_contents=[_framed(part)]
    )


def _inferred(answer: v2.ModelInferResponse) -> Entities:
    return [_named(json.loads(each)) for each in _unframed(answer.raw_output_contents[0])]


async def v2_grpc(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    async with calling(daemon.ports["grpc"], V2) as caller:
        for part in parts(texts):
            answer = await caller.call("ModelInfer", _infer(part), v2.ModelInferResponse)
            found += _inferred(answer)
    return found


async def v2_stream(daemon: Daemon, texts: Texts) -> Entities:
    async with calling(daemon.ports["grpc"], V2) as caller:
        requests = [_infer([text]).SerializeToString() for text in texts]
        answers = await _streamed(caller.stream("ModelStreamInfer"), requests)
    read = [v2.ModelStreamInferResponse.FromString(body) for body in answers]
    assert not any(each.error_message for each in read)
    return [entities for each in read for entities in _inferred(each.infer_response)]


async def nerve_extract(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    async with calling(daemon.ports["grpc"]) as caller:
        for part in parts(texts):
            request = nerve.ExtractRequest(texts=part)
            answer = await caller.call("Extract", request, nerve.ExtractResponse)
            found += [_attributes(each.entities) for each in answer.results]
    return found


async def nerve_stream(daemon: Daemon, texts: Texts) -> Entities:
    requests = []
    for part in parts(texts):
        items = [nerve.ExtractItem(text=text) for text in part]
        requests.append(nerve.ExtractStreamRequest(items=items).SerializeToString())
    async with calling(daemon.ports["grpc"]) as caller:
        answers = await _streamed(caller.stream("ExtractStream"), requests)
    read = [nerve.ExtractStreamResponse.FromString(body) for body in answers]
    return [_attributes(item.entities.entities) for each in read for item in each.results]


async def nerve_predict_tokens(daemon: Daemon, texts: Texts) -> Entities:
    found: Entities = []
    async with calling(daemon.ports["grpc"]) as caller:
        for part in parts(texts):
            request = nerve.PredictTokensRequest(
                texts=part, aggregation=nerve.Aggregation.AGGREGATION_SIMPLE
            )
            answer = await caller.call("PredictTokens", request, nerve.PredictTokensResponse)
            found += [
                [
                    Entity(label, e.start, e.end, e.token, np.float32(score))
                    for e in each.tokens
                    for label, score in e.results.items()
                ]
                for each in answer.results
            ]
    return found


async def _streamed(stream: Any, requests: Sequence[bytes]) -> list[bytes]:
    """Answers to all requests, which are sent as the answers are read."""

    async def send() -> None:
        for request in requests:
            await stream.write(request)
        await stream.done_writing()

    sending = asyncio.create_task(send())
    answers = [body async for body in stream]
    await sending
    return answers


async def python_http(daemon: Daemon, texts: Texts) -> Entities:
    return await asyncio.to_thread(_python, daemon.url, texts)


async def python_grpc(daemon: Daemon, texts: Texts) -> Entities:
    return await asyncio.to_thread(_python, f"grpc://127.0.0.1:{daemon.ports['grpc']}", texts)


def _python(url: str, texts: Texts) -> Entities:
    with Client(url) as client:
        return [_attributes(each) for each in client.extract(list(texts))]


async def python_many(daemon: Daemon, texts: Texts) -> Entities:
    """Both asyncio clients, half of the texts each, in bulk."""
    half, found = len(texts) // 2, list[list[Entity]]()
    for url, some in (
        (daemon.url, texts[:half]),
        (f"grpc://127.0.0.1:{daemon.ports['grpc']}", texts[half:]),
    ):
        async with AsyncClient(url) as client:
            async for each in client.extract_many(some, batch_size=BATCH):
                assert isinstance(each, list)
                found.append(_attributes(each))
    return found


async def javascript(daemon: Daemon, texts: Texts) -> Entities:
    return [_named(each) for each in await javascript_client(daemon, "extract", texts)]


ENTITY_DOORS: Final[Mapping[str, Callable[[Daemon, Texts], Awaitable[Entities]]]] = {
    door.__name__: door
    for door in (
        predict_tokens,
        baseten_client,
        v2_json,
        v2_binary,
        v2_raw_body,
        v2_generate,
        v2_grpc,
        v2_stream,
        nerve_extract,
        nerve_stream,
        nerve_predict_tokens,
        python_http,
        python_grpc,
        python_many,
        javascript,
    )
}
