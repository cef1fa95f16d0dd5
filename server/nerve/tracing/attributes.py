"""What spans say: names and attributes by OpenTelemetry's conventions, and `nerve.…` of our own. Pure.

Nothing of a request's text, and of a client's words only its request id.
"""

from __future__ import annotations

import re
from typing import Final

from nerve.exchange import Exchange
from nerve.types import TracedRun

Attributes = dict[str, str | int | float | bool]

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_CODES: Final = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
"""gRPC's statuses."""
_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Those of them that make a server's span one of an error."""
_OURS: Final = frozenset({
    "internal", "tokenization_failed", "inference_failed", "non_finite_scores", "transform_failed",
    "transform_result", "transform_limit", "transform_down", "model_unavailable", "model_not_ready",
    "model_unloaded", "server_stopping", "deadline_exceeded", "body_timeout", "unsupported",
    "store_failed",
})  # fmt: skip
"""Reasons that make a span one of an error where there is no status but ERROR: those that have one of
`_FAULTS` over gRPC."""
_ADDRESS: Final = re.compile(r"(?:ipv[46]:)?(?:\[|%5B)?(.*?)(?:\]|%5D)?(?::\d+)?")
CANCELLED: Final = "cancelled"


def name_of(exchange: Exchange) -> str:
    """The name of a request's span."""
    if exchange.protocol == "http":
        method = exchange.method if exchange.method in _METHODS else "HTTP"
        return f"{method} {exchange.route}".rstrip()
    if exchange.protocol == "mcp":
        return f"tools/call {exchange.route}".rstrip()
    if exchange.protocol == "async":
        return f"process {exchange.route}"
    return exchange.route.lstrip("/")


def beginning_of(exchange: Exchange) -> Attributes:
    """What is known when a request comes; samplers may ask for it."""
    if exchange.protocol == "http":
        known = exchange.method in _METHODS
        made: Attributes = {"http.request.method": exchange.method if known else "_OTHER"}
        if exchange.route:
            made["http.route"] = exchange.route
    elif exchange.protocol == "mcp":
        made = {"mcp.method.name": "tools/call"}
        if exchange.route:
            made["gen_ai.tool.name"] = exchange.route
    elif exchange.protocol == "async":
        made = {"messaging.operation.type": "process", "messaging.message.id": exchange.request_id}
    else:
        service, _, method = exchange.route.lstrip("/").rpartition("/")
        made = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    if client := client_address(exchange.peer):
        made["client.address"] = client
    made["nerve.dialect"] = exchange.dialect
    made["nerve.request_id"] = exchange.request_id
    return made


def client_address(peer: str) -> str:
    """The address in what aiohttp or grpc call a peer: 127.0.0.1, ipv4:127.0.0.1:5, ipv6:%5B::1%5D:5."""
    if peer.count(":") > 1 and not peer.startswith("ipv"):
        return peer  # IPv6 as aiohttp has it
    found = _ADDRESS.fullmatch(peer)
    return found[1] if found else peer


def end_of(exchange: Exchange) -> Attributes:
    """What is known when it was answered."""
    made: Attributes = {}
    if exchange.protocol == "http" and exchange.status:
        made["http.response.status_code"] = int(exchange.status)
    if exchange.protocol == "grpc" and (number := _CODES.get(grpc_code(exchange))) is not None:
        made["rpc.grpc.status_code"] = number
    if why := error_of(exchange):
        made["error.type"] = why
    if exchange.info is not None:
        made["nerve.model"], made["nerve.version"] = exchange.info.name, exchange.info.version
    if exchange.cost is not None:
        made["nerve.texts"], made["nerve.tokens"] = exchange.texts, exchange.cost.tokens
        if exchange.cost.cached is not None:
            made["nerve.cache_hits"] = exchange.cost.cached.hits
    if exchange.key is not None:
        made["nerve.key"] = exchange.key
    return made


def grpc_code(exchange: Exchange) -> str:
    """gRPC's name of the status that a call ended with; "" if it is not known."""
    if exchange.left:
        return "CANCELLED"
    return "OK" if exchange.status == "OK" else exchange.code


def error_of(exchange: Exchange) -> str:
    """Why it was not answered well, "" if it was."""
    if exchange.left:
        return CANCELLED
    if exchange.reason:
        return exchange.reason
    failed = exchange.status == "ERROR" or exchange.status[:1] in ("4", "5")
    return exchange.status if failed else ""


def is_fault(exchange: Exchange) -> bool:
    """Whether the server is to blame for how it ended, as the conventions see it."""
    if exchange.left:
        return False
    if exchange.protocol == "grpc":
        return grpc_code(exchange) in _FAULTS
    if exchange.protocol == "mcp":
        return exchange.status == "ERROR" and (not exchange.reason or exchange.reason in _OURS)
    return exchange.status.startswith("5")


def of_run(run: TracedRun) -> Attributes:
    """Of the span of a batch."""
    return {
        "nerve.rows": run.rows,
        "nerve.tokens": run.tokens,
        "nerve.padded_tokens": run.padded_tokens,
        "nerve.requests": len(run.traces),
        "nerve.device": run.device,
    }
