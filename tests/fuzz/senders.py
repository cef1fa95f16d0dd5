"""Cases are sent, and answers judged: which statuses, codes and bodies bad input may get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import grpc
import orjson

from fuzz.grpc_cases import NERVE, GrpcCase
from fuzz.http_cases import INITIALIZE, SESSION, HttpCase
from nerve._proto.nerve.v1 import nerve_pb2 as nerve

DEADLINE_S: Final = 30.0
"""A request that is not answered in this time hangs."""
HEAD: Final = (
    "POST {path} HTTP/1.1\r\nHost: fuzz\r\nAccept: application/json, text/event-stream\r\n"
)
REFUSED: Final = (501, "unsupported")
"""Status, and reason, of what the protocol has and this server, by its document, does not."""
FAULTS: Final = frozenset(
    {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}
)
"""Never the answer to a message: nothing that a client sends makes the server fail."""
STREAM_DEADLINE_S: Final = 10.0
"""Likewise of a stream, with its few messages. See `ENDED` for why it is less."""
ENDED: Final = "Internal error from Core"
"""What grpc.aio says itself, in place of the status, of a stream that was ended while it wrote to it. If
answers were on their way, it then keeps the call, and its connection, until the deadline."""


EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs


class Answer(NamedTuple):
    """What came back; `problem` is why it should not have."""

    status: str
    problem: str | None = None


class Response(NamedTuple):
    """A response over HTTP; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpSender:
    """One connection at a time, byte by byte: a client library would mend what is sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._session = ""
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def close(self) -> None:
        """Leave."""
        if self._wire is not None:
            writer, self._wire = self._wire[1], None
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def open_session(self) -> None:
        """Begin a session of MCP; cases that want one are sent in it."""
        await self._begin_session()

    async def _begin_session(self) -> None:
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
        response = await self._send(
            "/mcp", {"Content-Type": "application/json"}, json.dumps(body).encode()
        )
        self._session = response.headers.get(SESSION.lower(), "")
        assert self._session, response

    async def send(self, case: HttpCase) -> Answer:
        """Send, and judge the answer."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                response = await self._case(case)
        except TimeoutError:
            await self.close()
            return Answer("none", f"no answer in {DEADLINE_S:g} s")
        except (ConnectionError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
            await self.close()
            return Answer("none", f"no answer: {error!r}")
        return Answer(str(response.status), judge(response))

    async def _case(self, case: HttpCase) -> Response:
        if not case.session:
            return await self._send(case.path, case.headers, case.body)
        for _ in range(2):
            if not self._session:
                await self._begin_session()
            response = await self._send(
                case.path, {**case.headers, SESSION: self._session}, case.body
            )
            if response.status != 404:
                break
            self._session = ""  # idle for too long
        return response

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Any request."""
        return await self._send(
            path, {"Content-Type": "application/json"} | dict(headers or {}), body
        )

    async def _send(self, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = f"{HEAD.format(path=path)}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
        fresh = self._wire is None
        try:
            return await self._exchange(data)
        except (ConnectionError, asyncio.IncompleteReadError):
            if fresh:  # else the server may have ended an idle connection
                raise
            await self.close()
            return await self._exchange(data)

    async def _exchange(self, data: bytes) -> Response:
        if self._wire is None:
            self._wire = await asyncio.open_connection("127.0.0.1", self._port, limit=2**26)
        reader, writer = self._wire
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:])
        }
        if headers.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Response(int(head[0].split(" ")[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


def judge(response: Response) -> str | None:
    """What is wrong with a response, if anything. Pure."""
    reason = response.headers.get("x-nerve-reason", "")
    if response.status >= 500 and response.status != 503 and (response.status, reason) != REFUSED:
        return f"{response.status} {reason}: {response.body[:300]!r}"
    if response.status == 503 and not reason:
        return f"503 without a reason: {response.body[:300]!r}"
    kind = response.headers.get("content-type", "")
    whole = response.status != 202 and "content-encoding" not in response.headers
    if whole and kind.startswith("application/json"):
        try:
            orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            return (
                f"{response.status} with a body that is no JSON: {error}: {response.body[:300]!r}"
            )
    return None


class GrpcSender:
    """Calls with bytes on one channel."""

    def __init__(self, channel: Any) -> None:
        """`channel` is grpc.aio's; its stubs know nothing of calls with bytes."""
        self._channel = channel

    async def send(self, case: GrpcCase) -> Answer:
        """Call, and judge what came."""
        try:
            async with asyncio.timeout(DEADLINE_S * 2):  # grpc's own deadline comes first
                if case.stream:
                    return await self._stream(case)
                stub = self._channel.unary_unary(case.method)
                await stub(case.messages[0], metadata=case.metadata, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            return _judged(error.code(), error.trailing_metadata(), error.details())
        except TimeoutError:
            return Answer("none", "neither an answer nor grpc's deadline")
        return Answer("OK")

    async def _stream(self, case: GrpcCase) -> Answer:
        if case.method.endswith("/Watch"):
            stub = self._channel.unary_stream(case.method)
            call = stub(case.messages[0], timeout=STREAM_DEADLINE_S)
        else:
            stub = self._channel.stream_stream(case.method)
            call = stub(metadata=case.metadata, timeout=STREAM_DEADLINE_S)
        problem = None
        try:
            if not case.method.endswith("/Watch"):
                for message in case.messages:
                    await call.write(message)
                if case.leaves_after != 0:
                    await call.done_writing()
            answers = 0
            while answers != case.leaves_after and (body := await call.read()) is not EOF:
                answers += 1
                problem = problem or _item_fault(case.method, body)
            if answers == case.leaves_after:
                call.cancel()
                return Answer("left", problem)
        except asyncio.InvalidStateError:  # it ended while we wrote: its status tells why
            pass
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            return _judged(code, await call.trailing_metadata(), await call.details())
        return Answer("OK", problem)


def _judged(code: grpc.StatusCode, trailers: Any, details: str | None) -> Answer:
    reason = dict(trailers or ()).get("x-nerve-reason")
    problem = None
    if code is grpc.StatusCode.INTERNAL and reason is None and details == ENDED:
        return Answer("ended")
    if (
        code in FAULTS
        or code is grpc.StatusCode.DEADLINE_EXCEEDED
        or reason is None
        or (code is grpc.StatusCode.UNIMPLEMENTED and reason != REFUSED[1])
    ):
        problem = f"{code.name} {reason}: {details!s:.300}"
    return Answer(code.name, problem)


def _item_fault(method: str, body: bytes) -> str | None:
    """An item of a bulk answer that failed because of the server."""
    if not method.endswith(f"{NERVE}/ExtractStream"):
        return None
    codes = {fault.value[0] for fault in FAULTS}
    for item in nerve.ExtractStreamResponse.FromString(body).results:
        if item.error.code in codes:
            return f"item {item.id!r:.60}: {item.error.reason}: {item.error.message:.300}"
    return None
