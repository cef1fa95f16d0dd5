"""gRPC messages of every method, valid ones and what becomes of them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as health
from grpc_reflection.v1alpha import reflection_pb2 as reflection

from fuzz.byte_mutations import bytewise, wirewise
from fuzz.http_cases import SERVING, TEXT, TEXTS, VICTIM
from nerve._proto.encoderfile import metadata_pb2 as metadata
from nerve._proto.encoderfile import token_classification_pb2 as classification
from nerve._proto.inference import inference_pb2 as v2
from nerve._proto.nerve.v1 import nerve_pb2 as nerve

ENCODERFILE: Final = "encoderfile.token_classification.TokenClassificationInference"
V2: Final = "inference.GRPCInferenceService"
NERVE: Final = "nerve.v1.Nerve"
_EMPTY: Final = """
    ServerLive ServerReady ServerMetadata ModelReady ModelMetadata ModelConfig
    ModelStatistics RepositoryIndex SystemSharedMemoryStatus SystemSharedMemoryRegister
    SystemSharedMemoryUnregister CudaSharedMemoryStatus CudaSharedMemoryRegister
    CudaSharedMemoryUnregister
"""
EMPTY_METHODS: Final = tuple(_EMPTY.split())
"""Methods of the Open Inference Protocol whose requests have only scalars."""


@dataclass(frozen=True, slots=True)
class GrpcCase:
    """A call: one message, or those of a stream, whose client may leave after so many answers."""

    door: str
    method: str
    messages: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    leaves_after: int | None = None


class Base(NamedTuple):
    """A valid message of a method, and how often it is taken."""

    method: str
    message: bytes
    weight: int
    stream: bool = False


def _infer() -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name=SERVING[0], id="7")
    tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=[2, 1])
    tensor.contents.bytes_contents.extend([TEXT.encode(), TEXTS[0].encode()])
    request.outputs.add(name="ENTITIES")
    request.parameters["threshold"].double_param = 0.5
    request.parameters["aggregation"].string_param = "max"
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 9_000_000
    request.parameters["truncate"].bool_param = True
    return request


def _infer_raw() -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name=f"{SERVING[1]}.raw", model_version="1")
    for name, row in (("input_ids", (101, 400, 7, 102)), ("attention_mask", (1, 1, 1, 1))):
        request.inputs.add(name=name, datatype="INT64", shape=[1, 4])
        request.raw_input_contents.append(struct.pack("<4q", *row))
    return request


def _scalars(method: str) -> bytes:
    """The request of a method with every scalar filled in."""
    message: Message = getattr(v2, f"{method}Request")()
    for each in message.DESCRIPTOR.fields:
        named = SERVING[0] if "name" in each.name else "1"
        setattr(
            message,
            each.name,
            named if each.type == each.TYPE_STRING else b"x" if each.type == each.TYPE_BYTES else 1,
        )
    return bytes(message.SerializeToString(deterministic=True))


def _load() -> v2.RepositoryModelLoadRequest:
    request = v2.RepositoryModelLoadRequest(model_name=VICTIM)
    request.parameters["config"].string_param = '{"max_batch_size": 8}'
    return request


def _unload() -> v2.RepositoryModelUnloadRequest:
    request = v2.RepositoryModelUnloadRequest(model_name=VICTIM)
    request.parameters["wait"].bool_param = True
    return request


def _settings() -> tuple[v2.TraceSettingRequest, v2.LogSettingsRequest]:
    trace, log = v2.TraceSettingRequest(), v2.LogSettingsRequest()
    trace.settings["trace_level"].value.append("OFF")
    log.settings["log_verbose_level"].uint32_param = 0
    log.settings["log_info"].bool_param = True
    return trace, log


_OPTIONS: Final = nerve.ExtractOptions(
    aggregation=nerve.AGGREGATION_FIRST,
    threshold=0.25,
    labels=["PER"],
    offset_unit=nerve.OFFSET_UNIT_BYTE,
    truncate=True,
    truncation_side=nerve.TRUNCATION_SIDE_LEFT,
)


def _bases() -> tuple[Base, ...]:
    items = [nerve.ExtractItem(id=str(at), text=text) for at, text in enumerate(TEXTS)]
    trace, log = _settings()
    rows: list[tuple[str, Message, int, bool]] = [
        (
            f"{ENCODERFILE}/Predict",
            classification.TokenClassificationRequest(inputs=TEXTS, metadata={"a": "b"}),
            12,
            False,
        ),
        (f"{ENCODERFILE}/GetModelMetadata", metadata.GetModelMetadataRequest(), 1, False),
        (f"{V2}/ModelInfer", _infer(), 14, False),
        (f"{V2}/ModelInfer", _infer_raw(), 12, False),
        (f"{V2}/ModelStreamInfer", _infer(), 6, True),
        (f"{V2}/ModelStreamInfer", _infer_raw(), 6, True),
        (f"{V2}/RepositoryModelLoad", _load(), 1, False),
        (f"{V2}/RepositoryModelUnload", _unload(), 1, False),
        (f"{V2}/TraceSetting", trace, 2, False),
        (f"{V2}/LogSettings", log, 2, False),
        (
            f"{NERVE}/Extract",
            nerve.ExtractRequest(model="bert", version="1", texts=TEXTS, options=_OPTIONS),
            12,
            False,
        ),
        (
            f"{NERVE}/ExtractStream",
            nerve.ExtractStreamRequest(model="bert", options=_OPTIONS, items=items),
            10,
            True,
        ),
        (
            f"{NERVE}/PredictTokens",
            nerve.PredictTokensRequest(
                model="distilbert",
                texts=TEXTS,
                aggregation=nerve.AGGREGATION_NONE,
                raw_scores=True,
                ignore_labels=nerve.Labels(labels=["O"]),
            ),
            10,
            False,
        ),
        (
            f"{NERVE}/Predict",
            nerve.PredictRequest(texts=TEXTS, offset_unit=nerve.OFFSET_UNIT_UTF16),
            8,
            False,
        ),
        (f"{NERVE}/ListModels", nerve.ListModelsRequest(), 1, False),
        (f"{NERVE}/GetModel", nerve.GetModelRequest(model="bert"), 2, False),
        ("grpc.health.v1.Health/Check", health.HealthCheckRequest(service="bert"), 2, False),
        ("grpc.health.v1.Health/Watch", health.HealthCheckRequest(service="bert"), 2, True),
    ]
    symbol = reflection.ServerReflectionRequest(file_containing_symbol=f"{NERVE}.Extract")
    listed = reflection.ServerReflectionRequest(list_services="*")
    for package in ("v1", "v1alpha"):
        path = f"grpc.reflection.{package}.ServerReflection/ServerReflectionInfo"
        rows += [(path, symbol, 1, True), (path, listed, 1, True)]
    known = [
        Base(method, message.SerializeToString(deterministic=True), weight, stream)
        for method, message, weight, stream in rows
    ]
    return (*known, *(Base(f"{V2}/{name}", _scalars(name), 1) for name in EMPTY_METHODS))


BASES: Final = _bases()
_WEIGHTS: Final = [base.weight for base in BASES]
_BODIES: Final = tuple(base.message for base in BASES)
_METADATA: Final[Mapping[str, tuple[str, ...]]] = {
    "model-name": ("bert", "distilbert", "nope", "bert.raw", "~ %00"),
    "model-version": ("1", "2", "0", "-1", "x", "9" * 40),
    "x-nerve-priority": ("1", "10", "0", "11", "x", "1e400"),
    "triton_grpc_error": ("true", "x"),
}


def _spoilt(rng: Random, base: Base) -> bytes:
    chance = rng.random()
    if chance < 0.7:
        return wirewise(rng, base.message)
    if chance < 0.95:
        return bytewise(rng, base.message, _BODIES)
    return rng.choice(_BODIES)  # valid, but perhaps of another method


def grpc_case(rng: Random) -> GrpcCase:
    """A call that something happened to."""
    base = rng.choices(BASES, _WEIGHTS)[0]
    count = rng.choice((0, 1, 1, 2, 3, 8)) if base.stream else 1
    if base.method.endswith("/Watch"):
        count = 1
    messages = tuple(
        base.message if count > 1 and rng.random() < 0.4 else _spoilt(rng, base)
        for _ in range(count)
    )
    sent = tuple(
        (key, rng.choice(values)) for key, values in _METADATA.items() if rng.random() < 0.04
    )
    leaves = rng.choice((None, None, None, 0, 1)) if base.stream else None
    if base.method.endswith("/Watch"):
        leaves = 1  # it would never end
    return GrpcCase(
        base.method.rpartition(".")[2], f"/{base.method}", messages, sent, base.stream, leaves
    )
