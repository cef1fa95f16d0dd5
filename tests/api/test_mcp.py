"""MCP at /mcp: sessions of the SDK's own client, and what the tools answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from mcp import Client as McpClient
from mcp.shared.exceptions import MCPError

import nerve
from api import mcp_wire
from api.conftest import Client, Repository, Server, in_thread, serving, settings
from collector import grpc_collector
from nerve.frontend.mcp import results

if TYPE_CHECKING:
    from mcp_types import CallToolResult

ERAS = ("legacy", "2026-07-28")
"""Of the protocol: with sessions, and without."""
TEXTS = ["Barack Obama visited Microsoft in Berlin.", "Zoë met 李明 😀 in São Paulo.", " "]
SCHEMA = {  # contracts/encoderfile.md, section 6
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "TokenClassificationRequest",
    "type": "object",
    "properties": {
        "inputs": {"type": "array", "items": {"type": "string"}},
        "metadata": {
            "type": "object",
            "nullable": True,
            "additionalProperties": {"type": "string"},
            "default": None,
        },
    },
    "required": ["inputs"],
}


@pytest.fixture(scope="session")
def mcp_server(
    bundled: Path, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> Iterator[Server]:
    """The bundled model, the default one, and some with a character."""
    repository = Repository(tmp_path_factory.mktemp("mcp"), tiny_models)
    repository.add_patient("patient")
    repository.add_rule("rule")
    repository.add_broken("broken")
    config = settings(bundled, repository.path, default_model="minilm-ner", enable_mcp=True)
    with in_thread(config) as server:
        yield server


@pytest.fixture
async def http(mcp_server: Server) -> AsyncIterator[Client]:
    """For the other routes of the same server."""
    async with mcp_server.client() as client:
        yield client


def connect(server: Server, era: str = "legacy") -> AbstractAsyncContextManager[McpClient]:
    """A client of the SDK."""
    return McpClient(f"{server.url}/mcp", mode=era)


def text_of(result: CallToolResult) -> str:
    """The one block of text."""
    (block,) = result.content
    assert block.type == "text"
    return block.text


@pytest.mark.parametrize("era", ERAS)
async def test_introduction(mcp_server: Server, era: str) -> None:
    """Who answers, and with which tools; `run_encoder` is Encoderfile's to the letter."""
    async with connect(mcp_server, era) as client:
        listed = await client.list_tools()
        if era == "legacy":
            info = client.server_info
            assert info is not None
            assert (info.name, info.version) == ("nerve", nerve.__version__)
            assert client.instructions == (
                "This tool will classify each token of an input text sequence."
            )
    tools = {tool.name: tool for tool in listed.tools}
    assert list(tools) == ["run_encoder", "extract_entities", "list_models"]
    encoder = tools["run_encoder"].model_dump(by_alias=True, exclude_none=True)
    assert encoder["description"] == "Performs token classification of input text sequences."
    assert encoder["inputSchema"] == SCHEMA
    assert set(encoder) == {"name", "description", "inputSchema"}
    for name in ("extract_entities", "list_models"):
        tool = tools[name]
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.output_schema is not None
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
    models = tools["extract_entities"].input_schema["properties"]["model"]["description"]
    assert "minilm-ner (default): LOC, MISC, ORG, PER" in models
    assert "broken" not in models  # it is not ready


@pytest.mark.parametrize("era", ERAS)
async def test_run_encoder_is_predict(mcp_server: Server, http: Client, era: str) -> None:
    """Text and structure are the body of /predict, decimal for decimal."""
    asked: list[dict[str, Any]] = [
        {},
        {"metadata": None},
        {"metadata": {}},
        {"metadata": {"a": "é"}},
        {"unknown": 1},
    ]
    async with connect(mcp_server, era) as client:
        for more in asked:
            expected = await http.predict(TEXTS, **more)
            result = await client.call_tool("run_encoder", {"inputs": TEXTS, **more})
            assert result.is_error is False
            assert text_of(result) == expected.text
            assert json.dumps(result.structured_content) == json.dumps(expected.json())


REFUSED_BY_ENCODER: list[tuple[dict[str, Any], int, str]] = [
    ({"inputs": []}, -32600, "Cannot tokenize empty string"),
    ({"inputs": ["a", ""]}, -32600, "Cannot tokenize empty string"),
    ({}, -32602, "failed to deserialize parameters: inputs: this field is required"),
    ({"inputs": "a"}, -32602, "failed to deserialize parameters: inputs: "),
    ({"inputs": [1]}, -32602, "failed to deserialize parameters: inputs[0]: "),
    (
        {"inputs": ["a"], "metadata": {"n": 1}},
        -32602,
        "failed to deserialize parameters: metadata.n: ",
    ),
    (
        {"inputs": ["a"], "metadata": dict.fromkeys("abc", 1) | {"0": "", "1": 2}},
        -32602,
        "failed to deserialize parameters: metadata.a: input should be a valid string, got 1",
    ),
    ({"inputs": ["a"] * 1025}, -32603, "inputs: 1025 texts in one request, at most 1024"),
]


@pytest.mark.parametrize("era", ERAS)
async def test_run_encoder_refuses(mcp_server: Server, era: str) -> None:
    """Errors are the protocol's, with the codes of the contract; the session goes on."""
    async with connect(mcp_server, era) as client:
        for arguments, code, message in REFUSED_BY_ENCODER:
            with pytest.raises(MCPError) as refused:
                await client.call_tool("run_encoder", arguments)
            assert refused.value.code == code
            assert refused.value.message.startswith(message)
        assert (await client.call_tool("run_encoder", {"inputs": ["a"]})).is_error is False


async def test_unknown_tool(mcp_server: Server) -> None:
    async with connect(mcp_server) as client:
        with pytest.raises(MCPError, match="tool not found") as refused:
            await client.call_tool("walk_dog", {})
        assert refused.value.code == -32602


EXTRACTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"aggregation_strategy": "simple"}),
    ({"aggregation_strategy": "max"}, {"aggregation_strategy": "max"}),
    ({"aggregation_strategy": "none"}, {"aggregation_strategy": "none"}),
    ({"offset_unit": "byte"}, {"aggregation_strategy": "simple", "offset_unit": "byte"}),
    ({"model": "rule"}, {"aggregation_strategy": "simple"}),
    ({"model": None, "labels": None}, {"aggregation_strategy": "simple"}),
]
"""Options, and the same ones of /predict_tokens."""


@pytest.mark.parametrize("era", ERAS)
async def test_extract_entities_is_predict_tokens(
    mcp_server: Server, http: Client, era: str
) -> None:
    """The entities of /predict_tokens, in the promised shape."""
    texts = [*TEXTS, "german university company"]
    async with connect(mcp_server, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        output = tools["extract_entities"].output_schema
        assert output is not None
        for options, same in EXTRACTED:
            model = options.get("model")
            expected = await http.predict_tokens([[text] for text in texts], model=model, **same)
            result = await client.call_tool("extract_entities", {"texts": texts, **options})
            assert result.is_error is False
            jsonschema.validate(result.structured_content, output)
            assert result.structured_content["model"] == (model or "minilm-ner")
            found = [each["entities"] for each in result.structured_content["results"]]
            assert [
                [(*_place(entity), {entity["label"]: entity["score"]}) for entity in text]
                for text in found
            ] == [
                [(*_place(entity), entity["results"]) for entity in text]
                for text in expected.json()
            ]
            assert any(found)
            for entity in (entity for text in found for entity in text):
                assert repr(entity["text"]) in text_of(result)


def _place(entity: dict[str, Any]) -> tuple[object, ...]:
    return entity["start"], entity["end"]


async def test_one_text_filtered(mcp_server: Server) -> None:
    """`text` is one of `texts`; labels and a threshold leave the rest out."""
    async with connect(mcp_server) as client:

        async def labels(**options: object) -> list[str]:
            result = await client.call_tool("extract_entities", {"text": TEXTS[0], **options})
            (found,) = result.structured_content["results"]
            return [entity["label"] for entity in found["entities"]]

        assert await labels() == ["PER", "ORG", "LOC"]
        assert await labels(labels=["LOC", "PER"]) == ["PER", "LOC"]
        assert await labels(labels=["B-LOC"]) == ["LOC"]
        assert await labels(labels=[]) == ["PER", "ORG", "LOC"]
        assert await labels(threshold=0.98) == ["PER", "LOC"]
        assert await labels(threshold=1) == []
        empty = await client.call_tool("extract_entities", {"text": " "})
        assert text_of(empty) == "no entities\n(model minilm-ner, version 1)"


REFUSED_BY_EXTRACT: list[tuple[dict[str, Any], str]] = [
    ({}, "text: give text, or texts for several"),
    ({"text": "a", "texts": ["b"]}, "text: give either text or texts, not both"),
    ({"text": ""}, "text: it is empty; give the text to look for entities in"),
    ({"texts": []}, "texts: at least one text is needed, and none may be an empty string"),
    ({"texts": ["a", ""]}, "texts[1]: at least one text is needed"),
    ({"texts": ["a"] * 1025}, "texts: 1025 texts in one request, at most 1024 are taken"),
    ({"text": 1}, "text: input should be a valid string, got 1"),
    ({"text": "a", "treshold": 1}, "treshold: there is no such argument; there are text, "),
    ({"text": "a", "z": 1, "b": 1}, "z: there is no such argument"),
    ({"text": "a", "threshold": True}, "threshold: input should be a valid number, got true"),
    ({"text": "a", "model": "nope"}, "model 'nope' is not in the repository; it holds: broken"),
    ({"text": "a", "model": "broken"}, "model 'broken'"),
    ({"text": "a", "threshold": 2}, "threshold: expected a score from 0 to 1, got 2"),
    ({"text": "a", "labels": ["DOG"]}, "labels: 'DOG' is no label of 'minilm-ner'; it has LOC"),
    ({"text": "a", "aggregation_strategy": "best"}, "aggregation_strategy: input should be "),
    ({"text": "a", "offset_unit": "word"}, "offset_unit: input should be 'codepoint', 'byte'"),
    ({"text": "early", "model": "rule"}, "model 'rule' failed to run"),
]


async def test_extract_entities_tells_its_reader(mcp_server: Server) -> None:
    """What is wrong is a result that a language model reads."""
    async with connect(mcp_server) as client:
        for arguments, text in REFUSED_BY_EXTRACT:
            result = await client.call_tool("extract_entities", arguments)
            assert result.is_error is True
            assert text_of(result).startswith(text)
            assert result.structured_content is None


async def test_list_models(mcp_server: Server) -> None:
    async with connect(mcp_server) as client:
        result = await client.call_tool("list_models", {})
        output = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
    schema = output["list_models"]
    assert schema is not None
    jsonschema.validate(result.structured_content, schema)
    models = {model.pop("name"): model for model in result.structured_content["models"]}
    assert models["minilm-ner"] == {
        "ready": True,
        "default": True,
        "labels": ["LOC", "MISC", "ORG", "PER"],
        "state": "READY",
        "reason": "",
    }
    assert models["rule"]["labels"] == ["PER", "WORK-OF-ART"]
    assert models["broken"]["ready"] is False
    assert models["broken"]["reason"]
    assert "minilm-ner (default): finds LOC, MISC, ORG, PER\n" in text_of(result)


async def test_two_sessions_at_once(mcp_server: Server) -> None:
    """Calls of two clients, with the same request ids, are answered each to its own."""
    async with connect(mcp_server) as one, connect(mcp_server) as other:

        async def found(client: McpClient, text: str) -> str:
            result = await client.call_tool("extract_entities", {"text": text})
            return str(result.structured_content["results"][0]["entities"][0]["text"])

        names = ["Barack Obama", "Angela Merkel", "Marie Curie", "Microsoft"]
        calls = [
            found(client, f"We saw {name} in the garden.")
            for name in names
            for client in (one, other)
        ]
        assert await asyncio.gather(*calls) == [name for name in names for _ in range(2)]


@pytest.mark.parametrize("era", ERAS)
async def test_cancelled_call(mcp_server: Server, http: Client, era: str) -> None:
    """A call that its client gives up leaves the queue."""
    async with connect(mcp_server, era) as client:
        call = asyncio.create_task(
            client.call_tool("extract_entities", {"text": "people", "model": "patient"})
        )
        await http.queued("patient", 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await http.queued("patient", 0)
        assert (await client.call_tool("list_models", {})).is_error is False


async def test_large_answers(mcp_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the loop should write is refused, each tool in its own way."""
    monkeypatch.setattr(results, "MAX_ITEMS", 2)
    async with connect(mcp_server) as client:
        result = await client.call_tool("extract_entities", {"text": TEXTS[0]})
        assert result.is_error is True
        assert text_of(result).startswith("the answer has 3 entities, at most 2 are given")
        with pytest.raises(
            MCPError, match=r"the answer has \d+ tokens, at most 2 are given"
        ) as told:
            await client.call_tool("run_encoder", {"inputs": TEXTS})
        assert told.value.code == -32600


async def test_calls_are_counted(mcp_server: Server, http: Client) -> None:
    """By how they end; listening and looking are no calls."""

    async def counted(status: str) -> float:
        return await http.metric("nerve_requests_total", dialect="mcp", status=status)

    async def refused() -> float:
        return await http.metric("nerve_refused_requests_total", reason="too_many_inputs")

    well, badly, many = await counted("OK"), await counted("ERROR"), await refused()
    async with connect(mcp_server) as client:
        await client.list_tools()
        await client.call_tool("list_models", {})
        await client.call_tool("extract_entities", {"text": ""})
        with pytest.raises(MCPError):
            await client.call_tool("run_encoder", {})
        with pytest.raises(MCPError, match=r"batch|inputs|at most"):
            await client.call_tool("run_encoder", {"inputs": ["a"] * 10_000})
        await client.call_tool("extract_entities", {"texts": ["a"] * 10_000})
        with pytest.raises(MCPError, match="tool not found"):
            await client.call_tool("none_of_ours", {})
    assert (await counted("OK"), await counted("ERROR")) == (well + 1, badly + 5)
    assert await refused() == many + 2


async def test_tools_are_part_of_the_trace_of_the_request_that_called_them(
    repository: Repository,
) -> None:
    """In a session, too, whose tasks begin with its first request."""
    repository.add("ner")
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    sent = {"traceparent": f"00-{trace}-{span}-01", "x-request-id": "mine"}
    more: dict[str, Any] = {"enable_mcp": True, "enable_otel": True}
    async with grpc_collector() as collector:
        more["otel_exporter_url"] = collector.url
        async with serving(repository.path, **more) as http:
            session = await mcp_wire.open_session(http)
            data = mcp_wire.call("extract_entities", {"texts": ["a"]})
            answer = await mcp_wire.post(http, data, session=session, **sent)
            assert '"isError":true' not in answer.text
    called = collector.only("tools/call extract_entities")
    (outer,) = [each for each in collector.named("POST /mcp") if each.trace == trace]
    assert (called.trace, called.parent, outer.parent) == (trace, outer.id, span)
    stages = [each.name for each in collector.children(called)]
    assert stages == ["tokenize", "queue", "batch", "decode"]
    assert called.attributes["nerve.request_id"] == "mine"
