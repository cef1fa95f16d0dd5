"""JSON-RPC messages: what every transport checks before the SDK sees one, and how one is refused. Pure.

The SDK tells all that its library has to say of a message that is none, which takes longer the larger it
is and happens on the event loop; over stdio it tells nothing. No SDK is imported here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

from pydantic_core import from_json

from nerve.errors import InvalidRequest, MalformedBody, NerveError, kind_of, shown

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INTERNAL_ERROR: Final = -32603
MAX_VALUES: Final = 1000
"""Most values in the parameters of a message, not counting what the arguments of a call hold: the SDK
looks at each."""
CALL: Final = "tools/call"
ID_LIMIT: Final = 2**63
RequestId: TypeAlias = int | str


class InvalidMessage(InvalidRequest):
    """JSON, but no message that can be served."""

    reason = "invalid_message"

    def __init__(self, fault: str, request_id: RequestId | None = None) -> None:
        super().__init__(fault, request_id)
        self.fault, self.request_id = fault, request_id

    def __str__(self) -> str:
        return self.fault


class Message(NamedTuple):
    """What a client sent."""

    method: str | None
    """None of an answer."""
    id: RequestId | None
    """None of a notification."""
    params: dict[str, Any]


def read(body: bytes) -> Message:
    """Parse and check a message, as far as the SDK would otherwise refuse it.

    Raises:
        MalformedBody: no JSON, or what the SDK's parser does not take, such as deep nesting.
        InvalidMessage.
    """
    try:
        value = from_json(body)  # the parser of the SDK
    except ValueError as error:
        raise MalformedBody(str(error)) from None
    if not isinstance(value, dict):
        raise InvalidMessage(f"expected a JSON-RPC message, got {kind_of(value)}")
    request_id = value.get("id")
    if not (request_id is None or is_id(request_id)):
        raise InvalidMessage("id: expected a string or a whole number of at most 64 bits")
    if value.get("jsonrpc") != "2.0":
        raise InvalidMessage('jsonrpc: expected "2.0"', request_id)
    if "method" not in value:
        _check_answer(value)
        return Message(None, request_id, {})
    method, params = value["method"], value.get("params")
    if not isinstance(method, str):
        raise InvalidMessage(f"method: expected a string, got {kind_of(method)}", request_id)
    if not isinstance(params, dict | None):
        raise InvalidMessage(f"params: expected an object, got {kind_of(params)}", request_id)
    if count_values(method, params or {}) > MAX_VALUES:
        beside = " beside what its arguments hold" if method == CALL else ""
        raise InvalidMessage(f"params: more than {MAX_VALUES} values{beside}", request_id)
    return Message(method, request_id, params or {})


def is_id(value: object) -> bool:
    """Whether it may be the id of a request."""
    if isinstance(value, int) and not isinstance(value, bool):
        return -ID_LIMIT <= value < ID_LIMIT
    return isinstance(value, str)


def _check_answer(value: dict[str, Any]) -> None:
    """Raises InvalidMessage unless it is a result or an error."""
    error, request_id = value.get("error"), value.get("id")
    if "result" not in value and "error" not in value:
        raise InvalidMessage("method: this field is required", request_id)
    if isinstance(value.get("result"), dict) and request_id is not None:
        return
    if (
        not isinstance(error, dict)
        or type(error.get("code")) is not int
        or not isinstance(error.get("message"), str)
    ):
        fault = "expected the object result with an id, or error with a code and a message"
        raise InvalidMessage(fault, request_id)


def count_values(method: str, params: dict[str, Any]) -> int:
    """Values in `params` at every depth; those inside of a call's arguments do not count.

    Ends soon after the limit.
    """
    arguments = params.get("arguments") if method == CALL else None
    count = 0
    left: list[dict[str, Any] | list[Any]] = [params]
    while left and count <= MAX_VALUES:
        held = left.pop()
        count += len(held)
        if count > MAX_VALUES or (held is arguments and isinstance(held, dict)):
            continue
        inside = held.values() if isinstance(held, dict) else held
        left += [each for each in inside if isinstance(each, dict | list)]
    return count


def same_id(request_id: object) -> object:
    """Equal for ids that the SDK does not tell apart: 7 and "7"."""
    try:
        return int(request_id) if isinstance(request_id, str) else request_id
    except ValueError:
        return request_id


def in_use(request_id: RequestId) -> InvalidMessage:
    """The error of a second request with the id of one that is not answered yet.

    It has no id itself: its client would take it for the answer to the first.
    """
    return InvalidMessage(f"id: {shown(request_id)} is already in use")


def error_body(error: NerveError) -> dict[str, object]:
    """An error as JSON-RPC has it."""
    code = INVALID_REQUEST if isinstance(error, InvalidRequest) else INTERNAL_ERROR
    if isinstance(error, MalformedBody):
        code = PARSE_ERROR
    request_id = error.request_id if isinstance(error, InvalidMessage) else None
    return body_of(code, str(error), error.reason, request_id=request_id)


def body_of(
    code: int, message: str, reason: str, *, request_id: RequestId | None = None
) -> dict[str, object]:
    """The message that tells of an error; `reason` is for programs."""
    error = {"code": code, "message": message, "data": {"reason": reason}}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}
