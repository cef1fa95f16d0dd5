"""Requests over HTTP of every dialect, valid ones and what becomes of them. Pure."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from fuzz.byte_mutations import bytewise
from fuzz.json_mutations import dumps, loads, mutate

SERVING: Final = ("bert", "distilbert")
"""Models that answer throughout; the first is the default one."""
VICTIM: Final = "victim"
"""The model that is loaded and unloaded meanwhile."""
LENGTH: Final = "Inference-Header-Content-Length"
SESSION: Final = "Mcp-Session-Id"
TEXT: Final = "Ada Lovelace met Charles Babbage in London in 1833."
TEXTS: Final = ("Zoë lives in Paris", "x", "Acme Corp. hired Ada 🚀", TEXT)
CALL: Final = {"name": "extract_entities", "arguments": {
    "texts": list(TEXTS), "model": "bert", "labels": ["PER"], "threshold": 0.5,
    "aggregation_strategy": "first", "offset_unit": "utf16",
}}  # fmt: skip
META: Final = {"_meta": {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
}}  # fmt: skip
INITIALIZE: Final = {
    "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "fuzz", "version": "1"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpCase:
    """A POST. With `session` it belongs to the session of its sender."""

    door: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    session: bool = False


class Base(NamedTuple):
    """A valid request; `also` is what follows its JSON, `weight` how often it is taken."""

    door: str
    paths: tuple[str, ...]
    value: object
    weight: int
    headers: Mapping[str, str] = {}
    also: bytes = b""
    session: bool = False


def _of_models(verb: str) -> tuple[str, ...]:
    """A route at the root, of a model, of a version; and below the prefix of a deployment."""
    paths = [f"/{verb}", f"/environments/production/sync/{verb}"]
    for model in SERVING:
        paths += [f"/v1/models/{model}/{verb}", f"/v1/models/{model}/versions/1/{verb}"]
    return tuple(paths)


def _v2(verb: str, suffix: str = "") -> tuple[str, ...]:
    return tuple(
        f"/v2/models/{model}{suffix}{version}/{verb}"
        for model in SERVING
        for version in ("", "/versions/1")
    )


def _rpc(method: str, params: object, number: int | str | None = 1) -> dict[str, object]:
    said: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": params}
    return said if number is None else said | {"id": number}


def _modern(
    method: str, params: Mapping[str, object], name: str = ""
) -> tuple[object, dict[str, str]]:
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    return _rpc(method, {**params, **META}), headers | ({"Mcp-Name": name} if name else {})


def _blobs() -> tuple[dict[str, object], bytes]:
    """A request in the binary layout, and the content of its tensors."""
    texts = b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in TEXTS)
    tensor = {
        "name": "TEXT", "shape": [len(TEXTS), 1], "datatype": "BYTES",
        "parameters": {"binary_data_size": len(texts)},
    }  # fmt: skip
    outputs = [{"name": "ENTITIES", "parameters": {"binary_data": True}}]
    return {"id": "b", "inputs": [tensor], "outputs": outputs}, texts


def _ids(*, binary: bool) -> tuple[dict[str, object], bytes]:
    """The raw view: ids and their mask."""
    ids = [101, 1221, 361, 400, 102]
    rows = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    inputs: list[dict[str, object]] = []
    content = b""
    for name, row in rows.items():
        tensor: dict[str, object] = {"name": name, "shape": [1, len(row)], "datatype": "INT64"}
        blob = struct.pack(f"<{len(row)}q", *row)
        content += blob if binary else b""
        more = {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": row}
        inputs.append(tensor | more)
    return {"inputs": inputs, "parameters": {"binary_data_output": binary}}, content


_TENSOR: Final = {"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "data": list(TEXTS[:2])}
_INFER: Final = {
    "id": "42",
    "inputs": [_TENSOR],
    "outputs": [{"name": "ENTITIES", "parameters": {"binary_data": False}}],
    "parameters": {
        "threshold": 0.5,
        "aggregation": "max",
        "labels": "PER,LOC",
        "priority": 1,
        "timeout": 9_000_000,
        "offset_unit": "byte",
        "truncate": True,
        "binary_data_output": False,
    },
}
_CONFIG: Final = {"config": json.dumps({"max_batch_size": 16, "aggregation_strategy": "max"})}
_LOAD, _UNLOAD = f"/v2/repository/models/{VICTIM}/load", f"/v2/repository/models/{VICTIM}/unload"
_MODERN_CALL: Final = _modern("tools/call", CALL, "extract_entities")
_MODERN_LIST: Final = _modern("tools/list", {})

BASES: Final = (
    Base(
        "predict",
        _of_models("predict"),
        {"inputs": list(TEXTS), "metadata": {"a": "b"}, "offset_unit": "byte"},
        12,
    ),
    Base(
        "predict_tokens",
        _of_models("predict_tokens"),
        {
            "inputs": [[TEXT], [TEXTS[0], TEXTS[1]]],
            "truncate": True,
            "truncation_direction": "Left",
            "raw_scores": True,
            "aggregation_strategy": "first",
            "ignore_labels": ["O"],
            "offset_unit": "utf16",
            "threshold": 0.3,
            "labels": ["PER", "LOC"],
            "default_aggregation_strategy": "simple",
        },
        14,
    ),
    Base(
        "tokenize",
        _of_models("tokenize"),
        {"inputs": list(TEXTS), "add_special_tokens": True, "offset_unit": "byte"},
        6,
    ),
    Base(
        "decode",
        _of_models("decode"),
        {"ids": [[5, 6, 7], [101, 400]], "skip_special_tokens": False},
        6,
    ),
    Base("infer", _v2("infer"), _INFER, 14),
    Base("infer binary", _v2("infer"), _blobs()[0], 10, also=_blobs()[1]),
    Base("infer raw", _v2("infer", ".raw"), _ids(binary=False)[0], 8),
    Base(
        "infer raw binary", _v2("infer", ".raw"), _ids(binary=True)[0], 8, also=_ids(binary=True)[1]
    ),
    Base(
        "generate",
        (*_v2("generate"), *_v2("generate_stream")),
        {
            "id": "7",
            "TEXT": [TEXT, "x"],
            "threshold": 0.5,
            "parameters": {"aggregation": "none"},
        },
        8,
    ),
    Base(
        "generate raw",
        _v2("generate", ".raw"),
        {"input_ids": [101, 400, 102], "attention_mask": [1, 1, 1]},
        3,
    ),
    # log_error and log_warning are left on: what goes wrong must be seen.
    Base(
        "logging",
        ("/v2/logging",),
        {"log_verbose_level": 0, "log_info": True, "log_format": "default"},
        2,
    ),
    Base(
        "trace",
        ("/v2/trace/setting", "/v2/models/bert/trace/setting"),
        {"trace_level": ["OFF"], "trace_rate": "1000", "trace_mode": "triton"},
        2,
    ),
    Base("index", ("/v2/repository/index", "/v2/repository/any/index"), {"ready": True}, 2),
    Base("load", (_LOAD,), {"parameters": _CONFIG}, 1),
    Base("unload", (_UNLOAD,), {"parameters": {"unload_dependents": False, "wait": True}}, 1),
    Base("mcp", ("/mcp",), _MODERN_CALL[0], 4, _MODERN_CALL[1]),
    Base("mcp", ("/mcp",), _MODERN_LIST[0], 2, _MODERN_LIST[1]),
    Base("mcp", ("/mcp",), _rpc("initialize", INITIALIZE), 2),
    Base("mcp session", ("/mcp",), _rpc("tools/call", CALL, "c"), 4, session=True),
    Base("mcp session", ("/mcp",), _rpc("tools/list", {"cursor": "1"}), 2, session=True),
    Base(
        "mcp session",
        ("/mcp",),
        _rpc("notifications/cancelled", {"requestId": 1, "reason": "x"}, None),
        1,
        session=True,
    ),
    Base(
        "mcp session",
        ("/mcp",),
        {"jsonrpc": "2.0", "id": 1, "result": {"roots": []}},
        1,
        session=True,
    ),
)
_WORDS: Final = """
    BOOL BYTES FP32 INT64 LOGITS PER TEXT TOKENS _meta aggregation arguments attention_mask
    bert binary_data binary_data_output binary_data_size classification config data datatype
    id ids ignore_labels inputs jsonrpc labels metadata method model name offset_unit
    outputs parameters params priority progressToken raw_scores ready sequence_id shape
    shared_memory_region stride text_input texts threshold timeout token_type_ids triton_x
    truncate truncation_side utf16 version victim wait
"""
WORDS: Final = tuple(_WORDS.split())
"""Keys and values that mean something somewhere."""
_WEIGHTS: Final = [base.weight for base in BASES]
_BODIES: Final = tuple(dumps(loads(json.dumps(base.value))) + base.also for base in BASES)


def http_case(rng: Random) -> HttpCase:
    """A request that something happened to."""
    base = rng.choices(BASES, _WEIGHTS)[0]
    text = json.dumps(base.value)
    told, also = loads(text), base.also
    head = mutate(rng, told, WORDS) if rng.random() < 0.85 else text.encode()
    if also and rng.random() < 0.3:
        also = bytewise(rng, also, _BODIES)
    headers = {"Content-Type": "application/json"} | dict(base.headers)
    if base.also or rng.random() < 0.02:
        lies = (0, 1, len(head) + 1, len(head) - 1, 10**9, 10**12, -1, "x", "")
        headers[LENGTH] = str(len(head) if rng.random() < 0.85 else rng.choice(lies))
    body = head + also
    if rng.random() < 0.25:
        body = bytewise(rng, body, _BODIES)
    if rng.random() < 0.04:
        body, headers["Content-Encoding"] = _encoded(rng, body)
    if rng.random() < 0.02:
        headers["Content-Type"] = rng.choice(
            ("text/plain", "application/x-ndjson", "", "application/json; charset=x")
        )
    return HttpCase(base.door, rng.choice(base.paths), body, headers, base.session)


def _encoded(rng: Random, body: bytes) -> tuple[bytes, str]:
    """Compressed, or called so; sometimes broken."""
    coding, bits = rng.choice(
        (("gzip", 31), ("deflate", 15), ("deflate", -15), ("br", 31), ("gzip", 15))
    )
    packed = zlib.compress(body, 1, bits) if rng.random() < 0.8 else body
    return (bytewise(rng, packed, _BODIES) if rng.random() < 0.4 else packed), coding
