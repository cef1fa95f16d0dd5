"""Encoderfile's gRPC service on the real daemon (contract: encoderfile, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as pb
from support import Daemon

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


def test_generated_code_matches_the_protos(root: Path, tmp_path: Path) -> None:
    """server/nerve/_proto says what proto/ says."""
    from google.protobuf import descriptor_pb2  # noqa: PLC0415

    out = tmp_path / "set"
    files = sorted(str(path) for path in (root / "proto").rglob("*.proto"))
    assert len(files) == 3
    status = protoc.main(["protoc", f"-I{root / 'proto'}", f"--descriptor_set_out={out}", *files])
    assert status == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    generated = {}
    from nerve._proto.encoderfile import token_pb2  # noqa: PLC0415

    for module in (pb, metadata, token_pb2):
        proto = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(proto)
        generated[proto.name] = proto
    for file in found.file:
        file.ClearField("source_code_info")
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")
            for nested in message.nested_type:
                for field in nested.field:
                    field.ClearField("json_name")
        assert file == generated[file.name]
