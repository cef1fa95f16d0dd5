"""The Open Inference Protocol over HTTP but inference (contract kserve-v2, sections 1, 2, 5, 6)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from api.openinference_wire import said
from nerve import __version__

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve, ServerOf

MODEL = "/v2/models/minilm-ner"


# --- paths


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/v2/"),
        ("GET", "/v2/nothing"),
        ("GET", "/v2/nothing/health"),
        ("GET", "/v2/models"),
        ("GET", f"{MODEL}/"),
        ("GET", f"{MODEL}/versions"),
        ("GET", f"{MODEL}/versions/x"),
        ("GET", f"{MODEL}/versions/1x/ready"),
        ("GET", f"{MODEL}/versions/%D9%A1"),  # a digit, but not one of ours
        ("POST", f"{MODEL}/versions/-1/infer"),
        ("POST", f"{MODEL}/versions//infer"),
        ("POST", f"{MODEL}/versions/1/infer/"),
        ("POST", f"{MODEL}/predict_tokens"),
        ("POST", "/v2/models//infer"),
        ("POST", "/v2/models/a/b/infer"),
        ("GET", f"{MODEL}/versions/1/trace/setting"),
        ("GET", "/v2/health"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/production/sync", "/deployment/x/sync"])
async def test_unknown_paths(http: Client, prefix: str, verb: str, path: str) -> None:
    """404 in the protocol's shape, below a deployment's prefix, too."""
    said(await http.send(verb, prefix + path, data=b""), 404)


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("POST", "/v2", "GET,HEAD"),
        ("POST", "/v2/health/live", "GET,HEAD"),
        ("POST", MODEL, "GET,HEAD"),
        ("GET", f"{MODEL}/infer", "POST"),
        ("GET", f"{MODEL}/versions/1/generate", "POST"),
        ("PUT", "/v2/logging", "GET,HEAD,POST"),
        ("DELETE", f"{MODEL}/trace/setting", "GET,HEAD,POST"),
        ("GET", "/v2/systemsharedmemory/region/a/register", "POST"),
    ],
)
async def test_wrong_verbs(http: Client, verb: str, path: str, allowed: str) -> None:
    """405, and it tells which are right."""
    answer = await http.send(verb, path)
    said(answer, 405)
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/v2/models/v2/predict", "/v1/models/v2/versions/x/y", "/v22"])
async def test_other_dialects_keep_their_errors(http: Client, path: str) -> None:
    """A model may be called v2; only paths of the protocol have its shape."""
    answer = await http.get(path)
    assert answer.status == 404
    shape = {"/v2/models/v2/predict": ["error"], "/v22": None}.get(path, ["error", "reason"])
    assert (list(answer.json()) if answer.body else None) == shape


async def test_head(http: Client) -> None:
    """As elsewhere: what GET says, without it."""
    for path in ("/v2", "/v2/health/live", MODEL, f"{MODEL}/config"):
        answer = await http.send("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


async def test_names_are_decoded_once(http: Client) -> None:
    assert "'a b'" in said(await http.get("/v2/models/a%20b"), 404)
    assert "'a%20b'" in said(await http.get("/v2/models/a%2520b"), 404)


# --- health and metadata


async def test_health(http: Client) -> None:
    """Triton's statuses, with the bodies of the protocol's own text."""
    answer = await http.get("/v2/health/live")
    assert (answer.status, answer.json()) == (200, {"live": True})
    answer = await http.get("/v2/health/ready")
    assert (answer.status, answer.json()) == (200, {"ready": True})


async def test_not_ready(server_of: ServerOf, repository: Repository) -> None:
    """400 before the models are found; the server is alive."""
    repository.add("one")
    async with server_of(repository.path, started=False) as server, server.client() as http:
        answer = await http.get("/v2/health/live")
        assert (answer.status, answer.json()) == (200, {"live": True})
        answer = await http.get("/v2/health/ready")
        assert (answer.status, answer.json()) == (400, {"ready": False})


async def test_server_metadata(http: Client) -> None:
    about = (await http.get("/v2")).json()
    assert about["name"] == "nerve"
    assert about["version"] == __version__
    assert {"statistics", "binary_tensor_data", "model_repository"} <= set(about["extensions"])
    assert not {"classification", "system_shared_memory", "trace"} & set(about["extensions"])


async def test_model_metadata(http: Client) -> None:
    """Of both views; versions as the path has them."""
    assert (await http.get(MODEL)).json() == {
        "name": "minilm-ner",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "ENTITIES", "datatype": "BYTES", "shape": [-1, 1]}],
    }
    raw = (await http.get(f"{MODEL}.raw")).json()
    assert raw["inputs"][0]["name"] == "input_ids"
    assert [each["name"] for each in raw["outputs"]] == ["logits"]
    assert (await http.get("/v2/models/multi")).json()["versions"] == ["1", "2"]
    assert (await http.get("/v2/models/multi/versions/1")).json()["versions"] == ["1"]


async def test_model_ready(http: Client) -> None:
    answer = await http.get(f"{MODEL}/ready")
    assert (answer.status, answer.json()) == (200, {"name": "minilm-ner", "ready": True})
    assert (await http.get("/v2/models/multi/versions/2/ready")).status == 200
    for name in ("nope", "broken", "multi/versions/3", "minilm-ner/versions/0"):
        said(await http.get(f"/v2/models/{name}/ready"), 400)


async def test_metadata_and_config_of_what_is_not_there(http: Client) -> None:
    """404 where it is unknown, 503 where it is not ready."""
    for tail in ("", "/config"):
        for name in ("nope", "nope.raw", "multi/versions/3", "multi/versions/99999999999999999999"):
            said(await http.get(f"/v2/models/{name}{tail}"), 404)
        for name in ("broken", "broken.raw", "broken/versions/1"):
            said(await http.get(f"/v2/models/{name}{tail}"), 503)


async def test_config(http: Client) -> None:
    """The names are those of the metadata, which perf_analyzer relies on."""
    for name in ("minilm-ner", "minilm-ner.raw", "multi/versions/1"):
        config = (await http.get(f"/v2/models/{name}/config")).json()
        about = (await http.get(f"/v2/models/{name}")).json()
        assert config["name"] == about["name"]
        assert config["max_batch_size"] > 0
        for side in ("input", "output"):
            for tensor, told in zip(config[side], about[f"{side}s"], strict=True):
                assert tensor["name"] == told["name"]
                assert [-1, *tensor["dims"]] == told["shape"]


# --- statistics


async def test_statistics(serve: Serve, repository: Repository) -> None:
    """A row a READY version; requests of a model are counted in it."""
    repository.add("one")
    repository.add("two", version=1)
    repository.add("two", version=2, version_policy="all")
    http = await serve(repository.path)
    everything = (await http.get("/v2/models/stats")).json()["model_stats"]
    assert [(row["name"], row["version"]) for row in everything] == [
        ("one", "1"), ("two", "1"), ("two", "2"),
    ]  # fmt: skip
    assert [row["inference_count"] for row in everything] == [0, 0, 0]
    tensor = {"name": "TEXT", "shape": [3, 1], "datatype": "BYTES", "data": ["people"] * 3}
    answer = await http.post("/v2/models/two/versions/1/infer", {"inputs": [tensor]})
    assert answer.status == 200
    first, second = (await http.get("/v2/models/two/stats")).json()["model_stats"]
    assert (first["inference_count"], second["inference_count"]) == (3, 0)
    assert first["inference_stats"]["success"]["count"] == 1
    assert (await http.get("/v2/models/two/versions/1/stats")).json() == {"model_stats": [first]}


async def test_statistics_of_what_is_not_there(http: Client) -> None:
    for name in ("nope", "multi/versions/3"):
        said(await http.get(f"/v2/models/{name}/stats"), 400)


# --- settings


async def test_logging(http: Client) -> None:
    """Some settings are changed, all are told; what is wrong changes nothing."""
    before = (await http.get("/v2/logging")).json()
    assert set(before) == {
        "log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format",
    }  # fmt: skip
    answer = await http.post("/v2/logging", {"log_format": before["log_format"]})
    assert (answer.status, answer.json()) == (200, before)
    assert (await http.send("POST", "/v2/logging")).json() == before
    said(await http.post("/v2/logging", {"log_file": "/tmp/x"}), 501)
    wrong: list[object] = [
        {"log_info": 1}, {"log_verbose_level": -1}, {"log_format": "json"}, {"x": 1}, [],
    ]  # fmt: skip
    for value in wrong:
        said(await http.post("/v2/logging", value), 400)
    assert (await http.get("/v2/logging")).json() == before


@pytest.mark.parametrize("of", ["", "/models/minilm-ner", "/models/broken"])
async def test_trace_settings(http: Client, of: str) -> None:
    """There is no tracing: settings are told, and nothing else is taken."""
    path = f"/v2{of}/trace/setting"
    told = (await http.get(path)).json()
    assert told["trace_level"] == ["OFF"]
    taken: list[object] = [{"trace_level": ["OFF"]}, {"trace_rate": None}, {"other": 1}, {}]
    for value in taken:
        answer = await http.post(path, value)
        assert (answer.status, answer.json()) == (200, told)
    refused: list[object] = [{"trace_level": ["TIMESTAMPS"]}, {"trace_file": "/tmp/x"}]
    for value in refused:
        said(await http.post(path, value), 501)
    said(await http.post(path, ["OFF"]), 400)


async def test_trace_settings_of_an_unknown_model(http: Client) -> None:
    said(await http.get("/v2/models/nope/trace/setting"), 400)
    said(await http.post("/v2/models/nope/trace/setting", {}), 400)


@pytest.mark.parametrize("kind", ["system", "cuda"])
async def test_shared_memory(http: Client, kind: str) -> None:
    """There is none: nothing is listed, to forget all of it works, to register it does not."""
    base = f"/v2/{kind}sharedmemory"
    for place in (base, f"{base}/region/a"):
        answer = await http.get(f"{place}/status")
        assert (answer.status, answer.json()) == (200, [])
        answer = await http.send("POST", f"{place}/unregister")
        assert (answer.status, answer.body) == (200, b"")
    answer = await http.post(f"{base}/region/a/register", {"key": "/a", "byte_size": 8})
    assert "shared memory is not supported" in said(answer, 501)


# --- the repository's name


async def test_repository_name(http: Client) -> None:
    """The index ignores it, loads and unloads that have one are refused."""
    for body in (b"", b'{"ready":true}'):
        plain = await http.send("POST", "/v2/repository/index", data=body)
        assert plain.json()
        assert (await http.send("POST", "/v2/repository/any/index", data=body)).json() == (
            plain.json()
        )
    for verb in ("load", "unload"):
        said(await http.post(f"/v2/repository/any/models/bert/{verb}", {}), 501)


async def test_request_types_are_not_looked_at(http: Client) -> None:
    """None, any, or nonsense."""
    body = json.dumps({"TEXT": "people"}).encode()
    for kind in (None, "application/octet-stream", "text/plain; charset=latin-1", "nonsense"):
        answer = await http.send("POST", "/v2/models/bert/generate", data=body, content_type=kind)
        assert answer.status == 200, answer


async def test_many_at_once(http: Client) -> None:
    """Every kind of request at the same time; each gets its own answer."""

    async def ask(number: int) -> None:
        text = f"Zoë {number} in Paris"
        tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        value = {"id": str(number), "inputs": [tensor]}
        answer = (await http.post(f"{MODEL}/infer", value)).json()
        assert answer["id"] == str(number)
        flat = (await http.post(f"{MODEL}/generate", {"id": str(number), "TEXT": text})).json()
        assert flat["id"] == str(number)
        assert answer["outputs"][0]["data"] == [flat["ENTITIES"]]
        wrong = await http.post(f"{MODEL}/infer", {"id": str(number), "inputs": []})
        assert f"[request id: {number}]" in said(wrong, 400)

    await asyncio.gather(*map(ask, range(40)))
