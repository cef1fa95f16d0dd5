"""gRPC on the real daemon: Encoderfile's service (its contract, 3), the end, the generated code."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

from grpc_calls import calling, refusal, trailers
from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as pb
from nerve._proto.nerve.v1 import nerve_pb2 as nerve
from support import Daemon, running_server

SERVICE = "encoderfile.token_classification.TokenClassificationInference"
TEXTS = ["Zoë met 李明 in Paris.", "Hi"]


async def call(
    channel: grpc.aio.Channel,
    method: str,
    request: Any,
    answer: Any,
    *,
    sent: Sequence[tuple[str, str]] = (),
    timeout: float | None = 30,
) -> Any:
    stub = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return await stub(request, metadata=tuple(sent), timeout=timeout)


async def test_answers_like_http(tiny_daemon: Daemon) -> None:
    """The same tokens, byte offsets, labels and float32 scores as /predict; metadata echoed."""
    assert f"Starting gRPC server on 127.0.0.1:{tiny_daemon.ports['grpc']}" in tiny_daemon.output
    async with grpc.aio.insecure_channel(f"127.0.0.1:{tiny_daemon.ports['grpc']}") as channel:
        request = pb.TokenClassificationRequest(inputs=TEXTS, metadata={"k": "v"})
        answer = await call(channel, "Predict", request, pb.TokenClassificationResponse)
        asked = metadata.GetModelMetadataRequest()
        told = await call(channel, "GetModelMetadata", asked, metadata.GetModelMetadataResponse)
    async with (
        aiohttp.ClientSession(tiny_daemon.url) as http,
        http.post("/predict", json={"inputs": TEXTS, "metadata": {"k": "v"}}) as response,
    ):
        page = await response.json()
    assert (answer.model_id, dict(answer.metadata)) == (page["model_id"], page["metadata"])
    assert len(answer.results) == 2
    for mine, theirs in zip(answer.results, page["results"], strict=True):
        assert [
            (t.token_info.token, t.token_info.token_id, t.token_info.start, t.token_info.end)
            for t in mine.tokens
        ] == [tuple(t["token_info"].values()) for t in theirs["tokens"]]
        assert [t.label for t in mine.tokens] == [t["label"] for t in theirs["tokens"]]
        for one, other in zip(mine.tokens, theirs["tokens"], strict=True):
            assert np.float32(one.score) == np.float32(other["score"])
            np.testing.assert_allclose(one.scores, other["scores"], rtol=0, atol=1e-5)
    assert told.model_id == "bert"
    assert told.model_type == metadata.TOKEN_CLASSIFICATION
    assert told.id2label[0] == "O"


async def test_errors_and_health(tiny_daemon: Daemon) -> None:
    """Status codes and texts of the contract; the connection goes on working."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{tiny_daemon.ports['grpc']}") as channel:
        cases: list[tuple[list[str], list[tuple[str, str]], grpc.StatusCode, str]] = [
            ([], [], grpc.StatusCode.INVALID_ARGUMENT, "Cannot tokenize empty string"),
            (["a", ""], [], grpc.StatusCode.INVALID_ARGUMENT, "Cannot tokenize empty string"),
            (["a"], [("model-name", "x")], grpc.StatusCode.NOT_FOUND, "'x' is not in"),
            (["a"], [("model-version", "7")], grpc.StatusCode.NOT_FOUND, "no version '7'"),
            (["a"] * 1025, [], grpc.StatusCode.INVALID_ARGUMENT, "at most 1024"),
            (
                ["a"],
                [("x-nerve-priority", "11")],
                grpc.StatusCode.INVALID_ARGUMENT,
                "metadata x-nerve-priority: expected",
            ),
        ]
        for texts, sent, code, message in cases:
            request = pb.TokenClassificationRequest(inputs=texts)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, "Predict", request, pb.TokenClassificationResponse, sent=sent)
            assert caught.value.code() == code
            assert message in str(caught.value.details())
        raw = channel.unary_unary(
            f"/{SERVICE}/Predict", request_serializer=bytes, response_deserializer=bytes
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(b"\x0a\x02\xff\xfe")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "invalid UTF-8" in str(caught.value.details())
        request = pb.TokenClassificationRequest(inputs=["a"])
        named = [("model-name", "bert"), ("model-version", "1"), ("x-nerve-priority", "10")]
        answer = await call(channel, "Predict", request, pb.TokenClassificationResponse, sent=named)
        assert answer.model_id == "bert"
        for service in ("", SERVICE):
            health = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service)
            )
            assert health.status == health_pb2.HealthCheckResponse.SERVING


def described(directory: Path, *roots: Path) -> dict[str, bytes]:
    """What protoc makes of all .proto files under `roots`: name -> the file, serialized."""
    out = directory / "set"
    files = [str(path) for root in roots for path in sorted(root.rglob("*.proto"))]
    include = [f"-I{root}" for root in roots]
    assert protoc.main(["protoc", *include, f"--descriptor_set_out={out}", *files]) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: plain(file) for file in found.file}


def plain(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    """A file without what only some versions of protoc write into it."""

    def strip(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            strip(nested)

    file.ClearField("source_code_info")
    for message in file.message_type:
        strip(message)
    return file.SerializeToString(deterministic=True)


def generated(package: Path) -> dict[str, bytes]:
    """What is in the generated modules under `package`: name of the .proto file -> the file."""
    found = {}
    for path in sorted(package.rglob("*_pb2.py")):
        (body,) = re.findall(r"AddSerializedFile\((b'.*')\)", path.read_text(encoding="utf-8"))
        file = descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(body))
        found[file.name] = plain(file)
    return found


def test_generated_code_matches_the_protos(root: Path, tmp_path: Path) -> None:
    """The server's and the client's generated code say what proto/ says; no file is left out."""
    written = described(tmp_path, root / "proto")
    assert {"inference/inference.proto", "nerve/v1/nerve.proto"} < set(written)
    assert generated(root / "server" / "nerve" / "_proto") == written
    theirs = described(tmp_path, root / "proto" / "nerve" / "v1")
    client = root / "clients" / "python" / "src" / "nerve_client" / "_proto"
    assert generated(client) == theirs
    for package in (root / "server" / "nerve" / "_proto", client):
        for path in sorted(package.rglob("*_pb2.py")):
            text = path.read_text(encoding="utf-8")
            assert "_POOL.AddSerializedFile" in text, f"{path} uses the pool that all share"


async def test_sigterm_ends_streams(tmp_path: Path, tiny_models: Path) -> None:
    """What was read is answered, then streams end with UNAVAILABLE; nobody is waited for.

    Who watches health is told NOT_SERVING before. The default of 30 s for calls in flight is far
    longer than the bound.
    """
    folder = tmp_path / "repository" / "slow"
    shutil.copytree(tiny_models / "bert", folder)
    config = {
        "max_batch_size": 2,
        "dynamic_batching": {"scheduler": "fifo", "max_queue_delay_microseconds": 1_000_000},
        "model_warmup": [{"batch_size": 2}],
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    serving, unavailable = health_pb2.HealthCheckResponse, grpc.StatusCode.UNAVAILABLE

    def message(*texts: str) -> bytes:
        items = [nerve.ExtractItem(text=text) for text in texts]
        return nerve.ExtractStreamRequest(items=items).SerializeToString()

    async with (
        running_server(str(folder.parent)) as daemon,
        calling(daemon.ports["grpc"]) as caller,
        asyncio.timeout(20),
    ):
        idle, busy = caller.stream("ExtractStream"), caller.stream("ExtractStream")
        await idle.write(message("a", "b"))
        assert len(nerve.ExtractStreamResponse.FromString(await idle.read()).results) == 2
        asked = health_pb2.HealthCheckRequest(service="slow")
        watched = health_pb2_grpc.HealthStub(caller.channel).Watch(asked)
        assert (await watched.read()).status == serving.SERVING
        await busy.write(message("a"))
        status = nerve.GetModelResponse()
        while not status.versions or not status.versions[0].statistics.queued_rows:
            status = await caller.call("GetModel", b"", nerve.GetModelResponse)
        daemon.stop()
        assert (await watched.read()).status == serving.NOT_SERVING
        answer = nerve.ExtractStreamResponse.FromString(await busy.read())
        assert answer.results[0].WhichOneof("outcome") == "entities"
        for call in (idle, busy, watched):
            error = await refusal(call.read())
            assert error.code() == unavailable
            assert trailers(error)["x-nerve-reason"] == "server_stopping"
            assert trailers(error)["retry-after"] == "1"
        await daemon.process.wait()
