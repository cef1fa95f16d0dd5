"""A model with a response cache, on every wire: the same bytes, and fewer runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from api.conftest import in_thread, settings
from api.mcp_wire import MODERN, message, post
from api.openinference_wire import framed, send, text_input
from grpc_calls import LISTENING, Caller, calling, port_of
from nerve._proto.encoderfile import token_classification_pb2 as encoderfile_pb
from nerve._proto.inference import inference_pb2
from nerve._proto.nerve.v1 import nerve_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Client, Repository, Serve, Server

LONG = "people " * 200
TEXTS = [
    "Ada met Charles in London.",
    "Käthe wohnt in Köln 🙂.",
    LONG,
    "Ada met Charles in London.",
]
WITHOUT, WITH = "plain", "cache"
"""The same model twice. The names are as long as each other, and so are answers with them."""
Ask = Callable[["Client", Caller, str], Awaitable[object]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    from api.conftest import Repository  # noqa: PLC0415  for typing only above

    repository = Repository(tmp_path_factory.mktemp("cache"), tiny_models)
    repository.add(WITHOUT)
    repository.add(WITH, response_cache=True)
    with in_thread(settings(repository.path, enable_mcp=True, **LISTENING)) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Client]:
    async with server.client() as client:
        yield client


@pytest.fixture
async def grpc(server: Server) -> AsyncIterator[Caller]:
    async with calling(port_of(server.announced)) as caller:
        yield caller


def baseten(**fields: Any) -> Ask:
    async def ask(http: Client, _: Caller, model: str) -> object:
        answer = await http.predict_tokens(TEXTS, model=model, **fields)
        told = {
            name.lower(): value
            for name, value in answer.headers.items()
            if name.lower() in ("x-compute-tokens", "x-nerve-truncated-inputs", "content-length")
        }
        assert {"x-compute-tokens", "x-nerve-truncated-inputs"} <= set(told)
        return answer.status, answer.body, told

    return ask


async def ask_encoderfile(http: Client, _: Caller, model: str) -> object:
    answer = await http.predict(TEXTS, model=model)
    return answer.status, answer.body, answer.headers["x-nerve-truncated-inputs"]


def infer(*outputs: str, **parameters: object) -> Ask:
    body = {
        "inputs": [text_input(*TEXTS)],
        "outputs": [{"name": name} for name in outputs],
        "parameters": parameters,
    }

    async def ask(http: Client, _: Caller, model: str) -> object:
        answer = await http.post(f"/v2/models/{model}/infer", body)
        return answer.status, answer.body, answer.headers["x-nerve-truncated-inputs"]

    return ask


async def ask_generate(http: Client, _: Caller, model: str) -> object:
    answer = await http.post(f"/v2/models/{model}/generate", {"text_input": TEXTS[1]})
    return answer.status, answer.body


async def ask_raw(http: Client, _: Caller, model: str) -> object:
    ids = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 7, 3]}
    body = {"inputs": [ids, {**ids, "name": "attention_mask", "data": [1, 1, 1]}]}
    answer = await http.post(f"/v2/models/{model}.raw/infer", body)
    return answer.status, answer.body


async def ask_binary(http: Client, _: Caller, model: str) -> object:
    blob = framed(*TEXTS)
    tensor = {
        "name": "TEXT",
        "shape": [len(TEXTS), 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(blob)},
    }
    value = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    answer = await send(http, value, blob, path=f"/v2/models/{model}/infer")
    return answer.status, answer.body


def mcp(tool: str, **arguments: object) -> Ask:
    async def ask(http: Client, _: Caller, model: str) -> object:
        given = {"name": tool, "arguments": {**arguments, "model": model}, **MODERN}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call"}
        answer = await post(http, message("tools/call", given), **headers, **{"Mcp-Name": tool})
        assert answer.status == 200, answer.text
        assert not answer.json()["result"].get("isError"), answer.text
        return answer.body

    return ask


async def ask_extract(_: Client, grpc: Caller, model: str) -> object:
    request = pb.ExtractRequest(model=model, texts=TEXTS)
    return await grpc.start("Extract", request)


async def ask_predict_tokens(_: Client, grpc: Caller, model: str) -> object:
    return await grpc.start("PredictTokens", pb.PredictTokensRequest(model=model, texts=TEXTS))


async def ask_predict(_: Client, grpc: Caller, model: str) -> object:
    return await grpc.start("Predict", pb.PredictRequest(model=model, texts=TEXTS))


async def ask_stream(_: Client, grpc: Caller, model: str) -> object:
    items = [pb.ExtractItem(id=str(at), text=text) for at, text in enumerate(TEXTS)]
    stream = grpc.stream("ExtractStream")
    await stream.write(pb.ExtractStreamRequest(model=model, items=items).SerializeToString())
    await stream.done_writing()
    return [each async for each in stream]


async def ask_encoderfile_grpc(_: Client, grpc: Caller, model: str) -> object:
    own = Caller(grpc.channel, "encoderfile.token_classification.TokenClassificationInference")
    request = encoderfile_pb.TokenClassificationRequest(inputs=TEXTS)
    return await own.start("Predict", request, sent=[("model-name", model)])


async def ask_model_infer(_: Client, grpc: Caller, model: str) -> object:
    own = Caller(grpc.channel, "inference.GRPCInferenceService")
    request = inference_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=[len(TEXTS), 1])
    tensor.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    for name in ("ENTITIES", "LABELS", "TOKENS"):
        request.outputs.add(name=name)
    return await own.start("ModelInfer", request)


ASK: dict[str, Ask] = {
    "baseten": baseten(),
    "baseten first": baseten(aggregation_strategy="first"),
    "baseten raw scores": baseten(raw_scores=True),
    "encoderfile": ask_encoderfile,
    "encoderfile gRPC": ask_encoderfile_grpc,
    "generate": ask_generate,
    "infer": infer("ENTITIES"),
    "infer all": infer("ENTITIES", "LABELS", "TOKENS"),
    "infer binary": ask_binary,
    "infer gRPC": ask_model_infer,
    "infer in bytes": infer("ENTITIES", offset_unit="byte"),
    "infer raw": ask_raw,
    "infer some": infer("ENTITIES", threshold=0.13),
    "mcp": mcp("extract_entities", texts=TEXTS),
    "nerve Extract": ask_extract,
    "nerve ExtractStream": ask_stream,
    "nerve Predict": ask_predict,
    "nerve PredictTokens": ask_predict_tokens,
}


async def runs(http: Client, model: str) -> tuple[float, float]:
    """How many runs there were, and rows in them."""
    labels = {"model": model, "version": "1"}
    return (
        await http.metric("nerve_batch_rows_count", **labels),
        await http.metric("nerve_batch_rows_sum", **labels),
    )


async def hits(http: Client, what: str = "hits_total") -> float:
    return await http.metric(f"nerve_cache_{what}", model=WITH, version="1")


def renamed(value: object) -> str:
    """An answer as it would be of the model without the cache."""
    return repr(value).replace(WITH, WITHOUT)


@pytest.mark.parametrize("dialect", sorted(ASK))
async def test_the_same_bytes_with_and_without(http: Client, grpc: Caller, dialect: str) -> None:
    """The first time and the second, which runs nothing; raw tensors are run each time."""
    ask = ASK[dialect]
    expected = renamed(await ask(http, grpc, WITHOUT))
    assert len(expected) > 100
    assert renamed(await ask(http, grpc, WITH)) == expected
    before, hits_before = await runs(http, WITH), await hits(http)
    assert renamed(await ask(http, grpc, WITH)) == expected
    texts = 0 if dialect == "infer raw" else 1 if dialect == "generate" else len(TEXTS)
    assert await hits(http) == hits_before + texts
    assert (await runs(http, WITH) == before) == (texts > 0)


async def test_equal_requests_at_the_same_time_are_one_run(http: Client) -> None:
    """Of a model with the cache; without it each is run."""
    text = "Nobody has asked for this before."
    for model, rows in ((WITH, 1), (WITHOUT, 16)):
        _, before = await runs(http, model)
        answers = await asyncio.gather(*(http.predict([text], model=model) for _ in range(16)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert (await runs(http, model))[1] == before + rows


async def test_refusals_are_not_kept(http: Client) -> None:
    for _ in range(2):
        missed = await hits(http, "misses_total")
        answer = await http.predict_tokens(LONG + "x", model=WITH, truncate=False)
        assert answer.status == 413
        assert await hits(http, "misses_total") == missed + 1


async def test_statistics_count_requests_that_ran_nothing(http: Client) -> None:
    """As the protocol has it: no inference, no compute, but a request in the queue."""
    path = f"/v2/models/{WITH}/stats"

    async def told() -> dict[str, Any]:
        found: dict[str, Any] = (await http.get(path)).json()["model_stats"][0]
        return found

    before = await told()
    for texts in (["a b c", "d e f"], ["a b c", "d e f"], ["a b c", "g h i"]):
        await http.predict(texts, model=WITH)
    after = await told()
    assert after["inference_count"] == before["inference_count"] + 3

    counts = {
        key: stage["count"] - before["inference_stats"][key]["count"]
        for key, stage in after["inference_stats"].items()
    }
    assert counts == {
        "success": 3, "fail": 0, "queue": 3, "compute_input": 2, "compute_infer": 2,
        "compute_output": 2, "cache_hit": 1, "cache_miss": 2,
    }  # fmt: skip
    assert after["inference_stats"]["cache_hit"]["ns"] > 0
    config = (await http.get(f"/v2/models/{WITH}/config")).json()
    assert config["response_cache"] == {"enable": True}


async def test_a_reload_forgets(serve: Serve, repository: Repository) -> None:
    """Other labels, the same text; the bound is told by what is kept and what was dropped."""
    repository.add("kept", response_cache=True)
    http = await serve(repository.path, model_control_mode="explicit", load_model=["kept"])
    labels = {"model": "kept", "version": "1"}

    async def ask() -> dict[str, Any]:
        (found,) = (await http.predict(["people"], model="kept")).json()["results"]
        token: dict[str, Any] = found["tokens"][0]
        return token

    first = await ask()
    assert await ask() == first
    assert await http.metric("nerve_cache_hits_total", **labels) == 1
    held = await http.metric("nerve_cache_bytes", **labels)
    assert held > 0
    names = [f"B-NEW{at}" for at in range(len(first["scores"]))]
    cache = {"enable": True, "max_bytes": int(held * 1.5)}
    repository.configure("kept", {"response_cache": cache, "labels": names})
    answer = await http.post("/v2/repository/models/kept/load", {})
    assert answer.status == 200, answer.text
    again = await ask()
    assert again["label"].startswith("B-NEW")
    assert again["scores"] == first["scores"]
    for text in ("time", "people"):
        assert await http.metric("nerve_cache_entries", **labels) == 1
        await http.predict([text], model="kept")
    assert await http.metric("nerve_cache_evictions_total", **labels) == 2
    assert await http.metric("nerve_cache_bytes", **labels) <= held * 1.5
    repository.configure("kept", {})
    assert (await http.post("/v2/repository/models/kept/load", {})).status == 200

    async def gone() -> bool:
        return "nerve_cache_bytes{" not in (await http.get("/metrics")).text

    await http.until(gone)
    assert json.dumps(await ask()) == json.dumps(first)
