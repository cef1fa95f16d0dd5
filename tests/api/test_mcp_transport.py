"""MCP at /mcp below the tools: what is refused, sessions that end, clients that leave."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from api.conftest import BOUND_S, Client, Repository, Serve, Server, in_thread, settings
from api.mcp_wire import (
    ACCEPT,
    INITIALIZE,
    MODERN,
    call,
    event,
    listening,
    message,
    open_session,
    post,
)
from nerve.app import App
from nerve.frontend.http import mcp
from nerve.security.keys import new_key

LIMIT_BYTES = 65536
PATIENT = {"text": "people", "model": "patient"}


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """One model that makes callers wait; small limits."""
    repository = Repository(tmp_path_factory.mktemp("mcp"), tiny_models)
    repository.add_patient("patient")
    config = settings(
        repository.path,
        enable_mcp=True,
        max_body_bytes=LIMIT_BYTES,
        mcp_allowed_origins=["https://allowed.example"],
    )
    with in_thread(config) as server:
        yield server


@pytest.fixture
async def http(small_server: Server) -> AsyncIterator[Client]:
    async with small_server.client() as client:
        yield client


async def test_session(http: Client) -> None:
    """A session is opened, used and ended; then its id is unknown."""
    answer = await post(http, message("initialize", INITIALIZE))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert "no-cache" in answer.headers["Cache-Control"]
    result = event(answer)["result"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["capabilities"]["tools"] == {"listChanged": False}
    session = answer.headers["Mcp-Session-Id"]
    told = await post(http, message("notifications/initialized", number=None), session=session)
    assert (told.status, told.body) == (202, b"")
    listed = event(await post(http, call("list_models", {}), session=session))
    assert listed["result"]["isError"] is False
    headers = {"Mcp-Session-Id": session}
    assert (await http.send("DELETE", "/mcp", headers=headers)).status == 200
    assert (await http.send("DELETE", "/mcp", headers=headers)).status == 404
    assert (await post(http, call("list_models", {}), session=session)).status == 404


GARBAGE: list[tuple[bytes, dict[str, str], int, int]] = [
    (b"", {}, 400, -32700),
    (b"garbage", {}, 400, -32700),
    (b"\xff\xfe", {}, 400, -32700),
    (b"[]", {}, 400, -32600),
    (b"{}", {}, 400, -32600),
    (b"[" * 20_000, {}, 400, -32700),
    (b'{"jsonrpc":"2.0","id":1}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', {}, 400, -32600),
    (message("initialize", INITIALIZE | {"x": [0] * 1000}), {}, 400, -32600),
    (message("initialize", INITIALIZE), {"Content-Type": "application/json-rpc"}, 415, -32600),
    (message("tools/list"), {}, 400, -32600),  # there is no session
    (message("tools/list"), {"Mcp-Session-Id": "nope"}, 404, -32600),
    (message("initialize", INITIALIZE), {"Accept": "application/json"}, 406, -32600),
    (message("initialize", INITIALIZE), {"Content-Type": "text/plain"}, 415, -32600),
    (message("initialize", INITIALIZE), {"Content-Encoding": "br"}, 415, -32600),
    (b"no gzip", {"Content-Encoding": "gzip"}, 400, -32700),
    (b"x" * (LIMIT_BYTES + 1), {}, 413, -32600),
    (gzip.compress(bytes(LIMIT_BYTES + 1)), {"Content-Encoding": "gzip"}, 413, -32600),
    (message("initialize", INITIALIZE), {"Origin": "https://evil.example"}, 403, -32600),
    (b"garbage", {"MCP-Protocol-Version": "2026-07-28"}, 400, -32700),
    (b"[]", {"MCP-Protocol-Version": "2026-07-28"}, 400, -32600),
    (message("tools/list", MODERN), {"MCP-Protocol-Version": "9999-01-01"}, 400, -32020),
]


async def test_garbage(http: Client) -> None:
    """What cannot be used is refused with a JSON-RPC error, and nothing else happens."""
    for body, headers, status, code in GARBAGE:
        sent = {"Content-Type": "application/json"} | ACCEPT | headers
        answer = await http.send("POST", "/mcp", data=body, headers=sent, content_type=None)
        case = (body[:40], headers, answer.status, answer.text[:200])
        assert answer.status == status, case
        assert answer.headers["Content-Type"] == "application/json", case
        assert answer.json()["error"]["code"] == code, case
        assert "\n" not in answer.json()["error"]["message"], case
    assert (await http.send("PUT", "/mcp")).status == 405
    assert (await http.send("GET", "/mcp", headers=ACCEPT)).status == 400
    assert await open_session(http)


async def test_id_in_use(http: Client) -> None:
    """A second request with the id of one in flight is refused, which is answered as if alone."""
    session, other = await open_session(http), await open_session(http)
    again = [call("list_models", {}, number=7), call("list_models", {}, number="7")]
    asked = post(http, call("extract_entities", PATIENT, number=7), session=session)
    async with http.waiting(asked) as first:
        await http.queued("patient", 1)
        for body in again:
            refused = await post(http, body, session=session)
            assert (refused.status, refused.json()["id"]) == (400, None)
            assert refused.json()["error"]["message"].endswith("'7' is already in use") or (
                refused.json()["error"]["message"] == "id: 7 is already in use"
            )
            assert event(await post(http, body, session=other))["id"] in (7, "7")
        cancelled = message("notifications/cancelled", {"requestId": 7}, number=None)
        assert (await post(http, cancelled, session=session)).status == 202
        assert event(await first)["error"]["code"] == -32800
    for body in again:
        assert event(await post(http, body, session=session))["result"]["isError"] is False


async def test_type_in_capitals(http: Client) -> None:
    """Types are the same however they are written."""
    sent = ACCEPT | {"Content-Type": "Application/JSON; charset=UTF-8"}
    body = message("initialize", INITIALIZE)
    answer = await http.send("POST", "/mcp", data=body, headers=sent, content_type=None)
    assert answer.status == 200, answer.text


async def test_no_json_rpc_of_a_session(http: Client) -> None:
    """A session outlives messages that make no sense in it."""
    session = await open_session(http)
    for body in (
        message("nope"),
        message("tools/call", {"name": 1}),
        message("tools/call", {"name": "run_encoder", "arguments": []}),
        message("initialize", {"protocolVersion": 1}),
    ):
        assert event(await post(http, body, session=session))["error"]["code"] < 0
    for body in (
        message("nope", number=None),
        message("notifications/cancelled", {"requestId": 99}, number=None),
        message("notifications/cancelled", {}, number=None),
        b'{"jsonrpc":"2.0","id":7,"result":{}}',
    ):
        assert (await post(http, body, session=session)).status == 202
    listed = event(await post(http, call("list_models", {}), session=session))
    assert listed["result"]["isError"] is False


async def test_web_pages(http: Client) -> None:
    """Pages of this machine and those that the operator allows may ask."""
    for origin, status in (
        (http.server.url, 200),
        ("http://localhost:3000", 200),
        ("https://allowed.example", 200),
        ("https://allowed.example.evil.example", 403),
        ("null", 403),
    ):
        answer = await post(http, message("initialize", INITIALIZE), Origin=origin)
        assert answer.status == status, origin
    shared = "Access-Control-Allow-Origin"
    allowed = {"Origin": "https://allowed.example"}
    asked = await http.send("OPTIONS", "/mcp", headers=allowed)
    assert (asked.status, asked.headers[shared]) == (204, "https://allowed.example")
    opened = await post(http, message("initialize", INITIALIZE), **allowed)
    assert opened.headers[shared] == "https://allowed.example"
    assert opened.headers["Access-Control-Expose-Headers"] == "Mcp-Session-Id"
    local = await http.send("OPTIONS", "/mcp", headers={"Origin": "http://localhost:3000"})
    assert shared not in local.headers
    refused = await http.send("GET", "/mcp", headers=ACCEPT | {"Origin": "http://evil.example"})
    assert refused.status == 403
    assert "NERVE_MCP_ALLOWED_ORIGINS" in refused.json()["error"]["message"]
    assert refused.headers["x-nerve-reason"] == "foreign_origin"


async def test_web_pages_are_logged_once(
    http: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page, and not more than a few: anybody can send what no browser would."""
    monkeypatch.setattr(mcp, "MAX_TOLD", 3)
    caplog.set_level(logging.WARNING)
    for page in "aabbabcdefgh":
        origin = f"https://{page}.once.example"
        refused = await http.send("OPTIONS", "/mcp", headers={"Origin": origin})
        assert refused.status == 403
    told = [each for each in caplog.messages if ".once.example" in each]
    assert len(told) == len(set(told)) <= 3


@pytest.mark.parametrize("modern", [False, True])
async def test_client_that_vanishes(http: Client, *, modern: bool) -> None:
    """Nobody works on for it, and its session is still there."""
    session = await open_session(http)
    body = {"name": "extract_entities", "arguments": PATIENT}
    headers = {"Mcp-Session-Id": session}
    if modern:
        headers = {
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "extract_entities",
        }
        body |= MODERN
    before = await cancelled_calls(http)
    async with http.waiting(post(http, message("tools/call", body), **headers)) as asked:
        await http.queued("patient", 1)
        assert not asked.done()
    await http.queued("patient", 0)
    await http.until(lambda: has_come(http, before + 1))
    listed = event(await post(http, call("list_models", {}, number=2), session=session))
    assert listed["result"]["isError"] is False


async def test_client_that_hangs_up_having_read_all(small_server: Server, http: Client) -> None:
    """It looks like one that has no more to say, until it is sent something."""
    before, session = await cancelled_calls(http), await open_session(http)
    body = call("extract_entities", PATIENT)
    async with small_server.wire() as wire:
        await wire.send(
            b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\n"
            b"Mcp-Session-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (session.encode(), len(body), body)
        )
        await wire.reader.readuntil(b"\r\n\r\n")
        await http.queued("patient", 1)
    began = time.monotonic()
    await http.queued("patient", 0)
    await http.until(lambda: has_come(http, before + 1))
    assert time.monotonic() - began < 5  # the row would wait for longer, and so would a ping


async def cancelled_calls(http: Client) -> float:
    """Calls so far whose callers have left."""
    return await http.metric("nerve_requests_total", dialect="mcp", status="cancelled")


async def has_come(http: Client, count: float) -> bool:
    return await cancelled_calls(http) == count


async def test_cancelled_and_deleted(http: Client) -> None:
    """A notification ends one call, DELETE all of them."""
    session = await open_session(http)
    async with http.waiting(
        post(http, call("extract_entities", PATIENT, number=5), session=session)
    ) as asked:
        await http.queued("patient", 1)
        cancelled = message("notifications/cancelled", {"requestId": 5}, number=None)
        assert (await post(http, cancelled, session=session)).status == 202
        assert event(await asked)["error"]["code"] == -32800
    await http.queued("patient", 0)
    async with http.waiting(post(http, call("extract_entities", PATIENT), session=session)):
        await http.queued("patient", 1)
        ended = await http.send("DELETE", "/mcp", headers={"Mcp-Session-Id": session})
        assert ended.status == 200
        await http.queued("patient", 0)


async def test_slow_body_holds_nobody_up(small_server: Server, http: Client) -> None:
    """A client that does not send what it promised, and then leaves."""
    async with small_server.wire() as wire:
        await wire.send(
            b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n{"
        )
        assert await open_session(http)


async def test_limits_of_sessions(serve: Serve, repository: Repository) -> None:
    """No more than are allowed; one that is not used makes room."""
    repository.add("bert")
    http = await serve(
        repository.path, enable_mcp=True, mcp_max_sessions=2, mcp_session_timeout_s=0.3
    )
    used = await open_session(http)
    for _ in range(9):  # and never again
        assert (await post(http, message("initialize", INITIALIZE))).status == 200

    async def refused() -> bool:
        return (await post(http, message("initialize", INITIALIZE))).status == 503

    sessions = [used, await open_session(http)]
    listed = event(await post(http, call("list_models", {}), session=sessions[1]))
    assert listed["result"]["isError"] is False

    async def listen(stack: AsyncExitStack, session: str) -> aiohttp.ClientResponse:
        """A slow machine takes longer than an idle session is kept: then in a new one."""
        async with asyncio.timeout(60):
            while True:
                stream = await stack.enter_async_context(listening(http.server.url, session))
                if stream.status == 200:
                    return stream
                assert stream.status == 404
                session = await open_session(http)

    async with AsyncExitStack() as stack:
        _, stream = [await listen(stack, each) for each in sessions]
        opened = await post(http, message("initialize", INITIALIZE))
        assert (opened.status, opened.headers["x-nerve-reason"]) == (503, "too_many_sessions")
        assert "Retry-After" not in opened.headers  # nobody knows when there will be room
        assert opened.json()["error"]["message"] == "Too many open sessions"
        assert await http.metric("nerve_requests_total", dialect="mcp", status="503") == 1
        assert not stream.content.at_eof()

    async def room() -> bool:
        return not await refused()

    await http.until(room)


async def test_keys_share_the_sessions(
    serve: Serve, repository: Repository, tmp_path: Path
) -> None:
    """One cannot take them all, nor use or end those of another."""
    repository.add("bert")
    secrets, entries = {}, []
    for name in ("mine", "other"):
        secrets[name], digest = new_key()
        entries.append({"name": name, "sha256": digest, "scopes": ["predict"]})
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": entries}))
    http = await serve(repository.path, enable_mcp=True, mcp_max_sessions=2, api_keys_file=keys)
    mine, other = ({"X-Api-Key": secrets[name]} for name in ("mine", "other"))

    held = [await open_session(http, **mine) for _ in range(2)]
    async with (
        listening(http.server.url, held[0], **mine) as stream,
        listening(http.server.url, held[1], **mine),
    ):
        assert (await post(http, message("initialize", INITIALIZE), **mine)).status == 503
        for method, body in (("POST", call("list_models", {})), ("DELETE", None), ("GET", None)):
            sent = ACCEPT | other | {"Mcp-Session-Id": held[0]}
            assert (await http.send(method, "/mcp", data=body, headers=sent)).status == 404

        theirs = await open_session(http, **other)
        async with asyncio.timeout(BOUND_S):
            assert await stream.content.read() == b""  # it was used longest ago
        for session, key, status in (
            (held[0], mine, 404),
            (held[1], mine, 200),
            (theirs, mine, 404),
            (theirs, other, 200),
        ):
            answer = await post(http, call("list_models", {}), session=session, **key)
            assert answer.status == status, answer.text
        assert (await post(http, message("initialize", INITIALIZE), **mine)).status == 503


async def test_streams_tell_what_they_are_found_by(http: Client) -> None:
    """As whole answers do."""
    answer = await post(http, message("initialize", INITIALIZE), **{"X-Request-Id": "mine"})
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers.getall("x-request-id") == ["mine"]


async def test_stopping(repository: Repository) -> None:
    """A call is finished first; a client that listens does not hold the server up."""
    repository.add_patient("patient", max_queue_delay_microseconds=500_000)
    app = App(settings(repository.path, enable_mcp=True), announce=lambda _line: None)
    try:
        server = Server(app, (await app.start())["http"])
    except BaseException:
        await app.stop()
        raise
    async with server.client() as http:
        session = await open_session(http)
        asked = post(http, call("extract_entities", PATIENT), session=session)
        async with listening(server.url, session) as stream, http.waiting(asked) as answer:
            await http.queued("patient", 1)
            stopping = asyncio.create_task(app.stop())
            async with asyncio.timeout(BOUND_S):
                assert event(await answer)["result"]["isError"] is False
                assert await stream.content.read() == b""
                await stopping


async def test_off_by_default(serve: Serve, repository: Repository) -> None:
    """Without the setting there is no such path."""
    repository.add("bert")
    http = await serve(repository.path)
    assert (await post(http, message("initialize", INITIALIZE))).status == 404


async def test_deployment_prefix(http: Client) -> None:
    """As all routes, it is also where hosted deployments have it."""
    answer = await http.send(
        "POST", "/production/sync/mcp", data=message("initialize", INITIALIZE), headers=ACCEPT
    )
    assert answer.status == 200
