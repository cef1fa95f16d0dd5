"""An MCP client byte by byte, for what the SDK's would never send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from api.conftest import Answer, Client

PATH = "/mcp"
ACCEPT = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}
MODERN = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    }
}


def message(method: str, params: object = None, *, number: int | str | None = 1) -> bytes:
    """A request, or without a number a notification."""
    value: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if number is not None:
        value["id"] = number
    if params is not None:
        value["params"] = params
    return json.dumps(value).encode()


def call(name: str, arguments: Mapping[str, object], *, number: int | str = 1) -> bytes:
    """A call of a tool."""
    return message("tools/call", {"name": name, "arguments": arguments}, number=number)


async def post(http: Client, data: bytes, *, session: str | None = None, **headers: str) -> Answer:
    """One POST."""
    sent = ACCEPT | ({"Mcp-Session-Id": session} if session else {}) | headers
    return await http.send("POST", PATH, data=data, headers=sent)


async def open_session(http: Client, **headers: str) -> str:
    """A new session, ready for calls."""
    answer = await post(http, message("initialize", INITIALIZE), **headers)
    assert answer.status == 200, answer.text
    session = answer.headers["Mcp-Session-Id"]
    told = message("notifications/initialized", number=None)
    answer = await post(http, told, session=session, **headers)
    assert answer.status == 202, answer.text
    return session


def event(answer: Answer) -> Any:
    """The one message of a stream of events."""
    lines = [line for line in answer.text.split("\r\n") if line.startswith("data: ")]
    assert len(lines) == 1
    return json.loads(lines[0].removeprefix("data: "))


@asynccontextmanager
async def listening(url: str, session: str, **more: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """The stream of what the server may have to say."""
    headers = ACCEPT | {"Mcp-Session-Id": session} | more
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.get(url + PATH) as response,
    ):
        yield response
