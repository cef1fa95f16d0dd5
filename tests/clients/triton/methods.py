"""Every method of tritonclient but infer: health, metadata, config, repository, settings, memory."""

from __future__ import annotations

import asyncio
from typing import Any

from clients.triton.client import Client
from clients.triton.truth import MODEL, TEXTS, Truth, read

RAW = f"{MODEL}.raw"
OTHER = "bert"
ABSENT: dict[str, Any] = {"http": 404, "grpc": "NOT_FOUND"}
ABSENT_AS_400: dict[str, Any] = {"http": 400, "grpc": "NOT_FOUND"}
"""Of statistics and trace settings, where Triton's HTTP says so."""


def _whole(shape: list[Any]) -> list[int]:
    return [int(size) for size in shape]


async def check_health(client: Client, _: Truth) -> None:
    assert await client.call("is_server_live") is True
    assert await client.call("is_server_ready") is True
    assert await client.call("is_model_ready", MODEL) is True
    assert await client.call("is_model_ready", MODEL, "1") is True
    assert await client.call("is_model_ready", RAW) is True
    assert await client.call("is_model_ready", MODEL, "9") is False
    assert await client.call("is_model_ready", "nope") is False


async def check_server_metadata(client: Client, _: Truth) -> None:
    told = await client.told("get_server_metadata")
    assert told["name"]
    assert told["version"]
    assert {
        "model_repository", "schedule_policy", "model_configuration", "binary_tensor_data",
        "parameters", "statistics", "logging",
    } <= set(told["extensions"])  # fmt: skip


async def check_model_metadata(client: Client, _: Truth) -> None:
    for version in ("", "1"):
        told = await client.told("get_model_metadata", MODEL, version)
        assert told["name"] == MODEL
        assert told["versions"] == ["1"]
        assert told["platform"]
        (text,) = told["inputs"]
        assert (text["name"], text["datatype"], _whole(text["shape"])) == ("TEXT", "BYTES", [-1, 1])
        entities = told["outputs"][0]
        assert (entities["name"], entities["datatype"]) == ("ENTITIES", "BYTES")
        assert _whole(entities["shape"]) == [-1, 1]
    raw = await client.told("get_model_metadata", RAW)
    assert {tensor["name"] for tensor in raw["inputs"]} >= {"input_ids", "attention_mask"}
    for tensor in raw["inputs"]:
        assert (tensor["datatype"], _whole(tensor["shape"])) == ("INT64", [-1, -1])
    (logits,) = raw["outputs"]
    assert (logits["name"], logits["datatype"]) == ("logits", "FP32")
    assert _whole(logits["shape"]) == [-1, -1, 9]
    await client.refused("get_model_metadata", "nope", **ABSENT, says="nope")
    await client.refused("get_model_metadata", MODEL, "9", **ABSENT, says="9")


async def check_config(client: Client, _: Truth) -> None:
    for name, view in ((MODEL, {"TEXT": ("TYPE_STRING", [1])}), (RAW, {})):
        told = await client.told("get_model_config", name)
        config = told["config"] if client.grpc else told
        metadata = await client.told("get_model_metadata", name)
        assert config["name"] == name
        assert int(config["max_batch_size"]) > 0
        assert "dynamic_batching" in config
        inputs = {
            each["name"]: (each["data_type"], _whole(each["dims"])) for each in config["input"]
        }
        assert set(inputs) == {each["name"] for each in metadata["inputs"]}
        assert inputs.items() >= view.items()
        outputs = {each["name"] for each in config["output"]}
        assert outputs == {each["name"] for each in metadata["outputs"]}
    await client.refused("get_model_config", "nope", **ABSENT, says="nope")
    await client.refused("get_model_config", MODEL, "9", **ABSENT, says="9")


async def _rows(client: Client) -> dict[str, dict[str, Any]]:
    told = await client.told("get_model_repository_index")
    return {row["name"]: row for row in (told.get("models", []) if client.grpc else told)}


async def check_repository(client: Client, _: Truth) -> None:
    """Load, use and unload a model; it is left as it was found."""
    assert (await _rows(client))[MODEL]["state"] == "READY"
    assert (await _rows(client))[OTHER].get("state") != "READY"
    assert await client.call("is_model_ready", OTHER) is False
    await client.refused(
        "infer", OTHER, client.texts("a"), http=503, grpc="UNAVAILABLE", says=OTHER
    )
    await client.call("load_model", OTHER)
    row = (await _rows(client))[OTHER]
    assert (row["version"], row["state"]) == ("1", "READY")
    result = await client.call("infer", OTHER, client.texts("London"))
    assert isinstance(read(result)[0], list)
    await client.call("load_model", OTHER, config='{"max_batch_size": 3}')
    told = await client.told("get_model_config", OTHER)
    assert int((told["config"] if client.grpc else told)["max_batch_size"]) == 3
    await client.call("unload_model", OTHER, unload_dependents=True)
    async with asyncio.timeout(20):  # an unload is told when it has begun
        while (await _rows(client))[OTHER].get("state") in {"READY", "UNLOADING"}:
            await asyncio.sleep(0.02)
    assert await client.call("is_model_ready", OTHER) is False


async def check_repository_refusals(client: Client, _: Truth) -> None:
    invalid: dict[str, Any] = {"http": 400, "grpc": "INVALID_ARGUMENT"}
    # Triton says INTERNAL over gRPC, and hides the cause.
    await client.refused("load_model", "nope", **ABSENT, says="nope")
    await client.refused("load_model", OTHER, config="{", **invalid, says="config")
    await client.refused(
        "load_model", OTHER, config='{"max_batch": 3}', **invalid, says="max_batch"
    )
    files = {"file:1/model.onnx": b"onnx"}
    await client.refused("load_model", OTHER, config="{}", files=files, **invalid, says="file:1")
    assert (await _rows(client))[OTHER].get("state") != "READY"


async def _statistics(client: Client, name: str = MODEL, version: str = "") -> dict[str, Any]:
    told = await client.told("get_inference_statistics", name, version)
    (row,) = told["model_stats"]
    assert isinstance(row, dict)
    return row


async def check_statistics(client: Client, _: Truth) -> None:
    """Counts rise by what was asked."""

    def count(row: dict[str, Any], *path: str) -> int:
        found: Any = row
        for key in path:
            found = found.get(key, {})  # protobuf leaves zeros out
        return int(found or 0)

    await client.call("infer", MODEL, client.texts("warm"))
    before = await _statistics(client)
    for _again in range(2):
        await client.call("infer", MODEL, client.texts(*TEXTS))
    unknown = client.texts("a")
    await client.refused("infer", MODEL, unknown, outputs=[client.wanted("NOPE")], http=400,
                         grpc="INVALID_ARGUMENT", says="NOPE")  # fmt: skip
    after = await _statistics(client, version="1")
    assert (after["name"], after["version"]) == (MODEL, "1")

    def more(*path: str) -> int:
        return count(after, *path) - count(before, *path)

    assert more("inference_count") == 2 * len(TEXTS)
    assert 1 <= more("execution_count") <= 2 * len(TEXTS)
    assert more("last_inference") >= 0
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert more("inference_stats", part, "count") == 2, part
    for part in ("success", "compute_infer"):
        assert more("inference_stats", part, "ns") > 0, part
    runs = {
        int(row["batch_size"]): count(row, "compute_infer", "count") for row in after["batch_stats"]
    }
    assert all(runs.values())
    everything = (await client.told("get_inference_statistics"))["model_stats"]
    assert MODEL in {row["name"] for row in everything}
    await client.refused("get_inference_statistics", "nope", **ABSENT_AS_400, says="nope")


def _settings(client: Client, told: dict[str, Any]) -> dict[str, Any]:
    """Settings by name; gRPC wraps each."""
    if not client.grpc:
        return told
    return {
        name: next(iter(value.values()), None) for name, value in told.get("settings", {}).items()
    }


async def check_trace_settings(client: Client, _: Truth) -> None:
    """There is no tracing: what is in force may be asked for, anything else is refused."""
    every = _settings(client, await client.told("get_trace_settings"))
    assert set(every) >= {"trace_level", "trace_rate", "trace_count", "log_frequency"}
    assert every["trace_level"] == ["OFF"]
    missing: dict[str, Any] = {"http": 501, "grpc": "UNIMPLEMENTED"}
    for name in (None, MODEL):
        assert _settings(client, await client.told("get_trace_settings", name)) == every
        asked = {"trace_level": ["OFF"], "trace_rate": None}
        told = await client.told("update_trace_settings", name, asked)
        assert _settings(client, told) == every
        for other in ({"trace_level": ["TIMESTAMPS"]}, {"trace_file": "/tmp/x"}):
            setting = next(iter(other))
            await client.refused("update_trace_settings", name, other, **missing, says=setting)
    await client.refused("get_trace_settings", "nope", **ABSENT_AS_400, says="nope")


async def check_log_settings(client: Client, _: Truth) -> None:
    before = _settings(client, await client.told("get_log_settings"))
    assert set(before) >= {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level"}
    told = await client.told("update_log_settings", {"log_verbose_level": 1})
    assert int(_settings(client, told)["log_verbose_level"]) == 1
    told = await client.told("update_log_settings", {"log_verbose_level": 0, "log_info": True})
    assert _settings(client, told) == before
    await client.refused(
        "update_log_settings", {"log_file": "/tmp/x"}, http=501, grpc="UNIMPLEMENTED"
    )
    invalid: dict[str, Any] = {"http": 400, "grpc": "INVALID_ARGUMENT"}
    await client.refused("update_log_settings", {"log_format": "odd"}, **invalid)
    await client.refused("update_log_settings", {"log_loud": True}, **invalid)


async def check_shared_memory(client: Client, _: Truth) -> None:
    """There is none: nothing is registered, and nothing can be."""
    missing: dict[str, Any] = {"http": 501, "grpc": "UNIMPLEMENTED"}
    for kind, arguments in (("system", ("/key", 64)), ("cuda", (b"aGFuZGxl", 0, 64))):
        told = await client.told(f"get_{kind}_shared_memory_status")
        assert (told.get("regions", {}) if client.grpc else told) in ([], {})
        await client.refused(f"register_{kind}_shared_memory", "region", *arguments, **missing)
    tensor = client.tensors.InferInput("TEXT", [1, 1], "BYTES")
    tensor.set_shared_memory("region", 64)
    await client.refused("infer", MODEL, [tensor], **missing, says="shared_memory")


CHECKS = (
    check_health,
    check_server_metadata,
    check_model_metadata,
    check_config,
    check_repository,
    check_repository_refusals,
    check_statistics,
    check_trace_settings,
    check_log_settings,
    check_shared_memory,
)
