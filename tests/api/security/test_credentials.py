"""How a key is sent, what is said without, how often one may ask, and a file that changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import yaml

from api.conftest import Repository
from api.security.conftest import entry, secret, sent, write_keys
from grpc_calls import calling, refusal, trailers
from nerve._proto.nerve.v1 import nerve_pb2 as pb

if TYPE_CHECKING:
    from api.conftest import Client, Serve, Server


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {secret('predict')}"},
        {"Authorization": f"Api-Key {secret('predict')}"},
        {"X-API-Key": secret("predict")},
        {"Api-Key": secret("predict")},
    ],
    ids=lambda headers: " ".join(headers.values()).split()[0] + "".join(headers),
)
async def test_where_a_key_may_be(http: Client, grpc_port: int, headers: dict[str, str]) -> None:
    answer = await http.post("/predict", {"inputs": ["London"]}, headers=headers)
    assert answer.status == 200
    async with calling(grpc_port) as caller:
        metadata = [(name.lower(), value) for name, value in headers.items()]
        request = pb.ExtractRequest(texts=["London"])
        assert await caller.call("Extract", request, pb.ExtractResponse, sent=metadata)


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        # Baseten's client puts headers of the user's behind its own: the same key twice is one.
        ([("Authorization", "Bearer {read}"), ("Authorization", "Api-Key {read}")], True),
        ([("X-API-Key", "{read}"), ("X-API-Key", "{read}"), ("Api-Key", "{read}")], True),
        ([("Authorization", "Bearer {read}"), ("Authorization", "Bearer {admin}")], False),
        ([("Authorization", "Bearer {nobody}"), ("Authorization", "Bearer {read}")], False),
        ([("Authorization", "Bearer {read}"), ("Authorization", "Basic eA==")], False),
        ([("X-API-Key", "{admin}"), ("X-API-Key", "{read}")], False),
        ([("X-API-Key", "{nobody}"), ("x-api-key", "{read}")], False),
        ([("Api-Key", "{read}"), ("Api-Key", "")], False),
    ],
)
async def test_different_keys_are_refused(
    keyed: Server, grpc_port: int, headers: list[tuple[str, str]], good: bool
) -> None:
    """Also in the same header; which one counts would hang on who reads it."""
    keys = {name: secret(name) for name in ("read", "admin", "nobody")}
    pairs = [(name, value.format_map(keys)) for name, value in headers]
    async with keyed.wire() as wire:
        lines = [f"{name}: {value}" for name, value in pairs]
        await wire.send(
            "\r\n".join(["GET /v1/models HTTP/1.1", "Host: x", *lines, "", ""]).encode()
        )
        assert (await wire.answer()).status == (200 if good else 401)
    async with calling(grpc_port) as caller:
        metadata = [(name.lower(), value) for name, value in pairs]
        if good:
            request = pb.ListModelsRequest()
            await caller.call("ListModels", request, pb.ListModelsResponse, sent=metadata)
        else:
            error = await refusal(caller.start("ListModels", pb.ListModelsRequest(), sent=metadata))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/predict", None),
        ("/predict_tokens", {"error", "error_type"}),
        ("/tokenize", {"error", "error_type"}),
        ("/v2/models/bert/infer", {"error"}),
        ("/v1/models", {"error", "reason"}),
        ("/mcp", {"jsonrpc", "id", "error"}),
    ],
)
async def test_refusals_are_of_the_dialect(http: Client, path: str, shape: set[str] | None) -> None:
    """401 with the header that RFC 9110 wants; 403 without; neither tells a key."""
    method = "GET" if path == "/v1/models" else "POST"
    answer = await http.send(method, path, headers={"Authorization": f"Bearer {secret('hunter2')}"})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="nerve"'
    assert answer.headers["x-nerve-reason"] == "unauthenticated"
    assert "hunter2" not in answer.text
    assert "API key" in answer.text
    if shape is not None:
        assert set(answer.json()) == shape
    other = "predict" if method == "GET" else "read"
    answer = await http.send(method, path, headers=sent(other))
    assert answer.status == 403
    assert "WWW-Authenticate" not in answer.headers
    assert answer.headers["x-nerve-reason"] == "access_denied"


async def test_a_key_that_has_expired(http: Client) -> None:
    answer = await http.send("GET", "/v1/models", headers=sent("former"))
    assert answer.status == 401
    assert "'former' has expired" in answer.text


async def test_refusals_are_counted_by_reason(http: Client) -> None:
    async def count(status: str) -> float:
        page = (await http.send("GET", "/metrics", headers=sent("read"))).text
        pattern = rf'nerve_requests_total{{dialect="native",status="{status}"}} (\S+)'
        return sum(map(float, re.findall(pattern, page)))

    before = await count("401")
    await http.get("/v1/models")
    assert await count("401") == before + 1


async def test_a_rate_is_kept(http: Client, grpc_port: int) -> None:
    """429 and when to come back, in each protocol's words; others are not affected."""
    for _ in range(2):
        assert (await http.send("GET", "/v1/models", headers=sent("seldom"))).status == 200
    assert (await http.send("GET", "/livez", headers=sent("seldom"))).status == 200
    answer = await http.post("/predict_tokens", {"inputs": "a"}, headers=sent("seldom"))
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 50
    assert answer.headers["x-nerve-reason"] == "rate_limited"
    async with calling(grpc_port) as caller:
        request = pb.ExtractRequest(texts=["a"])
        metadata = [("x-api-key", secret("seldom"))]
        error = await refusal(caller.start("Extract", request, sent=metadata))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(trailers(error)["grpc-retry-pushback-ms"]) >= 1000
    assert (await http.send("GET", "/v1/models", headers=sent("read"))).status == 200


async def test_each_message_of_a_stream_counts(grpc_port: int) -> None:
    request = pb.ExtractStreamRequest(items=[pb.ExtractItem(text="a")])
    async with calling(grpc_port) as caller:
        call = caller.stream("ExtractStream", sent=[("x-api-key", secret("rarely"))])
        for _ in range(2):
            await call.write(request.SerializeToString())
            assert await call.read()
        await call.write(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_keys_come_and_go(
    repository: Repository, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is taken away is refused, a new one taken; a file with a fault changes nothing."""
    monkeypatch.setattr("nerve.security.security.LOOK_S", 0.05)
    repository.add("bert")
    file = write_keys(tmp_path)
    http = await serve(repository.path, api_keys_file=file)

    async def status(key: str) -> int:
        return (await http.send("GET", "/v1/models", headers=sent(key))).status

    def reloads(outcome: str) -> float | None:
        labels = {"kind": "api_keys", "outcome": outcome}
        return http.server.app.registry.get_sample_value("nerve_credential_reloads_total", labels)

    async def told(outcome: str) -> bool:
        return reloads(outcome) == 1

    assert (await status("read"), await status("newer")) == (200, 401)
    file.write_text("keys: [{name: newer}]")
    await http.until(lambda: told("failed"))
    assert (await status("read"), await status("newer")) == (200, 401)
    file.write_text(yaml.safe_dump({"keys": [entry("newer", "read")]}))
    await http.until(lambda: told("loaded"))
    assert (await status("read"), await status("newer")) == (401, 200)
    file.unlink()
    await http.until(lambda: _is(reloads("failed"), 2))
    assert await status("newer") == 200


async def _is(value: float | None, wanted: float) -> bool:
    return value == wanted
