"""`nerve mcp`: a server of its own, and over stdio, with the SDK's client and without."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcp import Client, StdioServerParameters

from commands import run_here

ENV = {**os.environ, "NERVE_PROVE_MODELS": "false", "NERVE_SETTLE_SECONDS": "0"}
MCP = [sys.executable, "-m", "nerve", "mcp"]
BOUND_S = 60
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Path:
    repository = tmp_path_factory.mktemp("mcp") / "repository"
    for name in ("bert", "distilbert"):
        shutil.copytree(tiny_models / name, repository / name)
    return repository


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps({"jsonrpc": "2.0"} | each).encode() + b"\n" for each in messages)


def opening() -> bytes:
    return lines(
        {"id": 0, "method": "initialize", "params": INITIALIZE},
        {"method": "notifications/initialized"},
    )


def call(number: int, tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"id": number, "method": "tools/call", "params": params}


@asynccontextmanager
async def started(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *MCP, *map(str, arguments), stdin=pipe, stdout=pipe, stderr=pipe, env=ENV
    )
    try:
        async with asyncio.timeout(BOUND_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_server_of_its_own(two_models: Path) -> None:
    """It announces its port, answers an SDK session, and drains while a client listens."""
    arguments = ["--hostname", "127.0.0.1", "--port", "0", "--model", "bert"]
    async with started(two_models, *arguments) as process:
        assert process.stdout is not None
        told = [(await process.stdout.readline()).decode() for _ in range(3)]
        port = json.loads(told[2])["ports"]["mcp"]
        assert told[0] == f"Starting MCP server on 127.0.0.1:{port}\n"
        assert told[1] == "Model: bert v1\n"
        root = f"http://127.0.0.1:{port}"
        async with Client(f"{root}/mcp", mode="legacy") as client:
            models = await client.call_tool("list_models", {})
            found = {each["name"]: each for each in models.structured_content["models"]}
            assert (found["bert"]["ready"], found["bert"]["default"]) == (True, True)
            assert found["distilbert"]["ready"] is False  # it was not chosen
            result = await client.call_tool("extract_entities", {"texts": ["a", "b"]})
            assert result.structured_content["model"] == "bert"
            assert len(result.structured_content["results"]) == 2
            async with aiohttp.ClientSession() as http:
                for path, status in (("/livez", 200), ("/metrics", 200), ("/predict", 404)):
                    assert (await http.get(root + path)).status == status
            process.send_signal(signal.SIGTERM)  # the client still has its stream
            assert await process.wait() == 0


async def test_stdio(two_models: Path) -> None:
    """A client that starts it and talks to it, as desktop programs do."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "nerve", "mcp", "--stdio", str(two_models)], env=ENV
    )
    async with asyncio.timeout(BOUND_S), Client(server) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools == ["run_encoder", "extract_entities", "list_models"]
        both = await asyncio.gather(
            *(
                client.call_tool("extract_entities", {"text": "a", "model": name})
                for name in ("bert", "distilbert")
            )
        )
        assert [each.structured_content["model"] for each in both] == ["bert", "distilbert"]
        ambiguous = await client.call_tool("extract_entities", {"text": "a"})
        assert ambiguous.is_error is True
        assert "there are several (bert, distilbert)" in str(ambiguous.content)


async def test_stdio_from_a_shell(two_models: Path) -> None:
    """All at once and then the end, as of `… | nerve mcp --stdio`: everything is answered, what is no
    message does no harm, and stdout has nothing but the protocol."""
    too_long = lines(call(1, "extract_entities", text="a" * 100_000))
    asked = lines(
        call(2, "run_encoder", inputs=[]),
        call(3, "extract_entities", text="a", model="bert"),
        {"method": "notifications/cancelled", "params": {"requestId": 77}},
    )
    process = await asyncio.create_subprocess_exec(
        *MCP, "--stdio", two_models, "--log-level", "debug",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENV | {"NERVE_MAX_BODY_BYTES": "65536"},
    )  # fmt: skip
    async with asyncio.timeout(BOUND_S):
        sent = opening() + b"garbage\n\n{}\n\xff\n" + too_long + asked
        out, err = await process.communicate(sent)
    assert process.returncode == 0, err
    told = list(map(json.loads, out.splitlines()))
    answers = {each["id"]: each for each in told}
    assert sorted(answers, key=str) == [0, 2, 3, None]
    assert answers[0]["result"]["serverInfo"]["name"] == "nerve"
    faults = [each["error"] for each in told if each["id"] is None]
    assert [each["code"] for each in faults] == [-32700, -32600, -32700, -32600]
    assert faults[-1]["message"] == "length limit exceeded: the message is over 65536 bytes"
    assert answers[2]["error"]["message"] == "Cannot tokenize empty string"
    assert answers[3]["result"]["structuredContent"]["model"] == "bert"
    assert b"Model: bert v1" in err


REFUSED: list[tuple[bytes, object, int]] = [
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, -32600),
    (b'{"jsonrpc":"2.0","id":2,"method":"ping","params":[]}', 2, -32600),
    (b'{"jsonrpc":"2.0","id":3,"params":{}}', 3, -32600),
    (b'{"jsonrpc":"2.0","id":4,"method":"ping","params":' + b'{"a":' * 900 + b"1" + b"}" * 901,
     None, -32700),
    (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"a":' + b"1" * 5000 + b"}}", None, -32700),
    (b'{"jsonrpc":"2.0","id":6,"method":"ping","params":{"a":"\\ud800"}}', None, -32700),
]  # fmt: skip
"""Lines, and the id and code of what is told of them."""


def test_stdio_refuses(two_models: Path) -> None:
    """What is no message has an answer that says so, and holds nobody up at the end; the last line needs
    no end."""
    faults = b"".join(line + b"\n" for line, _, _ in REFUSED)
    again = lines(*(call(9, "extract_entities", text="a", model="bert") for _ in range(2)))
    last = lines({"id": "last", "method": "ping"}).rstrip(b"\n")
    ended = run_here("mcp", "--stdio", two_models, stdin=opening() + faults + again + last, env=ENV)
    assert ended.returncode == 0, ended.stderr
    told = list(map(json.loads, ended.stdout.splitlines()))
    errors = [(each["id"], each["error"]["code"]) for each in told if "error" in each]
    assert errors == [*((request_id, code) for _, request_id, code in REFUSED), (None, -32600)]
    assert [each["error"]["message"] for each in told if "error" in each][-1] == (
        "id: 9 is already in use"
    )
    assert {each["id"] for each in told if "result" in each} == {0, 9, "last"}


async def test_stdio_ends_by_signal(two_models: Path) -> None:
    """SIGTERM ends it while its client is silent."""
    async with started("--stdio", two_models) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(opening())
        await process.stdin.drain()
        assert json.loads(await process.stdout.readline())["id"] == 0
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def test_unknown_model(two_models: Path) -> None:
    """A model that is not there is told before anything is loaded."""
    ended = run_here("mcp", two_models, "--model", "nope", "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr.decode() == (
        "Error: model 'nope' is not in the repository; it holds: bert, distilbert\n"
    )
    assert ended.stdout == b""


async def test_stdio_to_nobody(two_models: Path) -> None:
    """A client that stops reading ends it, though stdin is still open."""
    theirs, ours = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *MCP, "--stdio", two_models, stdin=asyncio.subprocess.PIPE, stdout=ours, env=ENV
    )
    os.close(ours)
    os.close(theirs)
    try:
        assert process.stdin is not None
        process.stdin.write(opening())
        async with asyncio.timeout(BOUND_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_port_in_use(two_models: Path) -> None:
    """The error names this command's own option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_here("mcp", two_models, "--hostname", "127.0.0.1", "--port", str(port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}: the port is in use; choose another with --port" in (
        ended.stderr.decode()
    )


@pytest.mark.parametrize("command", ["mcp", "serve"])
def test_without_the_sdk(two_models: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    for name in ("mcp", "mcp_types"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "nerve.frontend.mcp.server", raising=False)
    ended = run_here(command, two_models, env={"NERVE_ENABLE_MCP": "true"})
    assert ended.returncode == 1
    assert "pip install 'nerve-server[mcp]'" in ended.stderr.decode()
