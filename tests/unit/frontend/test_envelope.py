"""MCP messages: what is one, and the sentence about what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nerve.errors import MalformedBody
from nerve.frontend.mcp import envelope
from nerve.frontend.mcp.envelope import MAX_VALUES, InvalidMessage, Message, count_values, read

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
MANY = 10 * MAX_VALUES
NO_IDS: list[object] = [1.5, True, [{}] * MANY, {}, 2**63]


def call(**params: object) -> dict[str, Any]:
    return PING | {"method": "tools/call", "params": {"name": "x"} | params}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PING, Message("ping", 1, {})),
        (PING | {"id": "a"}, Message("ping", "a", {})),
        (PING | {"id": 0, "params": None}, Message("ping", 0, {})),
        (PING | {"id": None}, Message("ping", None, {})),  # as the SDK has it
        (PING | {"params": {"a": [1]}}, Message("ping", 1, {"a": [1]})),
        ({"jsonrpc": "2.0", "id": 7, "result": {}}, Message(None, 7, {})),
        (
            {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": ""}},
            Message(None, None, {}),
        ),
        (PING | {"more": [{}] * MANY}, Message("ping", 1, {})),
    ],
)
def test_messages(value: object, message: Message) -> None:
    assert read(json.dumps(value).encode()) == message


@pytest.mark.parametrize("texts", [["a"] * MANY, [[["a"] * MANY]]])
def test_arguments_of_a_call_are_not_counted(texts: object) -> None:
    """They are for the tool to check."""
    message = read(json.dumps(call(arguments={"texts": texts})).encode())
    assert message.params["arguments"]["texts"] == texts


@pytest.mark.parametrize(
    ("value", "fault", "request_id"),
    [
        ([], "expected a JSON-RPC message, got a list", None),
        ({}, 'jsonrpc: expected "2.0"', None),
        ({"a": [{}] * MANY}, 'jsonrpc: expected "2.0"', None),
        (PING | {"jsonrpc": [{}] * MANY}, 'jsonrpc: expected "2.0"', 1),
        ({"jsonrpc": "2.0", "id": 1}, "method: this field is required", 1),
        (PING | {"method": [1] * MANY}, "method: expected a string, got a list", 1),
        (PING | {"params": [1] * MANY}, "params: expected an object, got a list", 1),
        *(
            (
                PING | {"id": each},
                "id: expected a string or a whole number of at most 64 bits",
                None,
            )
            for each in NO_IDS
        ),
        ({"jsonrpc": "2.0", "id": 1, "result": []}, "expected the object result with an id", 1),
        (
            {"jsonrpc": "2.0", "id": 1, "error": {"code": [{}] * MANY, "message": ""}},
            "expected the object result with an id, or error with a code and a message",
            1,
        ),
        (PING | {"params": {"a": [0] * MANY}}, f"params: more than {MAX_VALUES} values", 1),
        (call(_meta=[[0] * MANY]), f"params: more than {MAX_VALUES} values beside what its", 1),
        (call(arguments=[0] * MANY), f"params: more than {MAX_VALUES} values beside what its", 1),
        (
            call(arguments={str(n): 0 for n in range(MANY)}),
            f"params: more than {MAX_VALUES} values beside what its",
            1,
        ),
    ],
)
def test_no_messages(value: object, fault: str, request_id: object) -> None:
    """One short sentence, with the id where there is one."""
    with pytest.raises(InvalidMessage) as refused:
        read(json.dumps(value).encode())
    assert str(refused.value).startswith(fault)
    assert len(str(refused.value)) < 100
    told: Any = envelope.error_body(refused.value)
    assert (told["id"], told["error"]["code"]) == (request_id, -32600)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"\xff",
        b'{"a":1} x',
        b'"\\ud800"',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 900 + b"]" * 900,
    ],
)
def test_no_json(body: bytes) -> None:
    """What the SDK's parser does not take is none, either."""
    with pytest.raises(MalformedBody) as refused:
        read(body)
    told: Any = envelope.error_body(refused.value)
    assert (told["id"], told["error"]["code"]) == (None, -32700)


def test_counting_ends_at_the_limit() -> None:
    """Only a list that is small enough is looked into."""

    class Watched(list[object]):
        def __iter__(self) -> Any:
            raise AssertionError

    assert count_values("x", {"a": Watched([0] * MANY)}) > MAX_VALUES
    assert count_values("x", {"a": {"b": [0, [0]]}}) == 5
