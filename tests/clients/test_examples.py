"""clients/examples, as they stand, against the daemon on the bundled model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clients.separate import cannot, run
from support import Daemon

LONDON = ("Ada Lovelace lived in London.", {("PER", "Ada Lovelace"), ("LOC", "London")})
PARIS = ("Marie Curie lived in Paris.", {("PER", "Marie Curie"), ("LOC", "Paris")})


@pytest.fixture(scope="session")
def examples(root: Path) -> Path:
    return root / "clients" / "examples"


def env(daemon: Daemon) -> dict[str, str]:
    return {"NERVE_URL": daemon.url, "NERVE_GRPC": f"127.0.0.1:{daemon.ports['grpc']}"}


def found(printed: str) -> set[tuple[str, str]]:
    """(label, text) of each line `LABEL text score`."""
    lines = [line.split(" ") for line in printed.splitlines()]
    return {(label, " ".join(text)) for label, *text, _ in lines}


def documents(printed: str) -> list[Any]:
    """Every JSON value of an output, one after the other."""
    read, at, values = json.JSONDecoder(), 0, []
    while at < len(printed := printed.strip()):
        value, at = read.raw_decode(printed, at)
        values.append(value)
        at += len(printed[at:]) - len(printed[at:].lstrip())
    return values


def pairs(entities: list[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(each["label"], each["text"]) for each in entities}


async def test_curl(examples: Path, bundled_daemon: Daemon) -> None:
    """Five doors, five answers."""
    printed = await run("sh", examples / "curl.sh", env=env(bundled_daemon))
    baseten, encoderfile, v2, raw, generate = documents(printed)
    assert {(*each["results"], each["token"]) for each in baseten[0]} == LONDON[1]
    tokens = encoderfile["results"][0]["tokens"]
    assert next(each["label"] for each in tokens if each["label"] != "O") == "B-PER"
    for document in (v2["outputs"][0]["data"][0], generate["ENTITIES"]):
        assert pairs(json.loads(document)) == LONDON[1]
    assert pairs(raw) == LONDON[1]


def programs(tmp_path: Path) -> Mapping[str, str]:
    """PATH with a grpcurl: the real one, or buf in its place."""
    if shutil.which("grpcurl"):
        return {}
    buf = shutil.which("buf", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if buf is None:
        cannot("neither grpcurl nor buf is there; get buf by: pip install buf-bin")
    places = (str(Path(__file__).parent / "bin"), str(Path(sys.executable).parent))
    cache = str(tmp_path)  # buf keeps one
    return {"PATH": ":".join([*places, os.environ["PATH"]]), "BUF": buf, "BUF_CACHE_DIR": cache}


async def test_grpcurl(examples: Path, bundled_daemon: Daemon, tmp_path: Path) -> None:
    """Reflection tells the services, and each of them answers."""
    script, more = examples / "grpcurl.sh", programs(tmp_path)
    printed = await run("sh", script, env={**env(bundled_daemon), **more})
    listed, brace, rest = printed.partition("{")
    assert {
        "encoderfile.token_classification.TokenClassificationInference",
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "nerve.v1.Nerve",
    } <= set(listed.split())
    extract, first, second, predict, v2, *health = documents(brace + rest)
    assert pairs(extract["results"][0]["entities"]) == LONDON[1]
    one, bad = first["results"]
    assert pairs(one["entities"]["entities"]) == LONDON[1]
    assert (bad["id"], bad["error"]["code"]) == ("b", 3)
    assert pairs(second["results"][0]["entities"]["entities"]) == PARIS[1]
    assert predict["modelId"] == "minilm-ner"
    assert predict["results"][0]["tokens"][0]["label"] == "B-PER"
    assert [each["name"] for each in v2["outputs"]] == ["ENTITIES"]
    assert health == [{"status": "SERVING"}] * 2


@pytest.mark.parametrize(
    "name", ["baseten.py", "nerve_python.py", "tritonclient_http.py", "tritonclient_stream.py"]
)
async def test_python(examples: Path, bundled_daemon: Daemon, name: str) -> None:
    """Entities of two texts, a line each."""
    script, texts = examples / name, (LONDON[0], PARIS[0])
    printed = await run(sys.executable, script, *texts, env=env(bundled_daemon))
    assert found(printed) == LONDON[1] | PARIS[1]


async def test_own_client_over_grpc(examples: Path, bundled_daemon: Daemon) -> None:
    url = f"grpc://127.0.0.1:{bundled_daemon.ports['grpc']}"
    script = examples / "nerve_python.py"
    printed = await run(sys.executable, script, LONDON[0], "", PARIS[0], env={"NERVE_URL": url})
    first, second, failed, *rest = printed.splitlines()
    assert found("\n".join([first, second, *rest])) == LONDON[1] | PARIS[1]
    assert failed.startswith("failed: ")


async def test_token_ids(examples: Path, bundled: Path, bundled_daemon: Daemon) -> None:
    tokenizer = bundled / "minilm-ner" / "1" / "tokenizer.json"
    script = examples / "tritonclient_grpc.py"
    printed = await run(sys.executable, script, tokenizer, LONDON[0], env=env(bundled_daemon))
    rows = [line.split() for line in printed.splitlines()]
    assert [piece for piece, _ in rows][:3] == ["[CLS]", "ada", "love"]
    assert dict(rows)["london"] == "7"  # B-LOC


async def test_token_ids_without_arguments(examples: Path, bundled_daemon: Daemon) -> None:
    """The tokenizer is the bundled model's."""
    script = examples / "tritonclient_grpc.py"
    printed = await run(sys.executable, script, env=env(bundled_daemon))
    assert dict(line.split() for line in printed.splitlines())["london"] == "7"


async def test_more_texts_than_a_request_holds(examples: Path, bundled_daemon: Daemon) -> None:
    """The bundled model takes 32 at once."""
    script, texts = examples / "tritonclient_http.py", [LONDON[0], PARIS[0]] * 35
    printed = await run(sys.executable, script, *texts, env=env(bundled_daemon))
    lines = [line.rpartition(" ")[0] for line in printed.splitlines()]
    assert lines == ["PER Ada Lovelace", "LOC London", "PER Marie Curie", "LOC Paris"] * 35


async def test_scores_agree(examples: Path, bundled_daemon: Daemon) -> None:
    """Of every example in Python that prints them, for one text."""
    own, scores = env(bundled_daemon), {}
    for name in ("baseten.py", "nerve_python.py", "tritonclient_http.py", "tritonclient_stream.py"):
        printed = await run(sys.executable, examples / name, LONDON[0], env=own)
        scores[name] = [float(line.rpartition(" ")[2]) for line in printed.splitlines()]
    expected = scores["baseten.py"]
    assert len(expected) == 2
    for found in scores.values():
        assert found == pytest.approx(expected, rel=1e-6)
    printed = await run(sys.executable, examples / "entities.py", LONDON[0], env=own)
    shown = [float(score) for score in re.findall(r"\(([\d.]+), \d", printed)]
    assert shown == pytest.approx(expected, abs=0.0006)


async def failing(script: Path, url: str, **env: str) -> str:
    """What entities.py says of an address, in one line; it must end with 1."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, *(["--url", url] if url else []), "x",
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **env},
    )  # fmt: skip
    async with asyncio.timeout(60):
        said = (await process.communicate())[1].decode()
    assert process.returncode == 1, said
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("url", ["localhost:8080", "http://h:99999", "grpc://h:1", "http://"])
async def test_what_is_no_address(examples: Path, url: str) -> None:
    expected = f"--url: expected http://host:port, got '{url}'\n"
    assert await failing(examples / "entities.py", url) == expected
    assert await failing(examples / "entities.py", "", NERVE_URL=url) == expected


async def test_where_no_server_is(examples: Path, bundled_daemon: Daemon) -> None:
    """Nobody, another path, gRPC, something that is not ours."""
    said = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"simple"}')  # the end of the request
        writer.write(said)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    script = examples / "entities.py"
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert (await failing(script, nobody)).startswith(f"no server at {nobody}: ")
    assert await failing(script, f"{bundled_daemon.url}/nope") == (
        "404: '/nope/predict_tokens' is not served; see GET /docs\n"
    )
    grpc = f"http://127.0.0.1:{bundled_daemon.ports['grpc']}"
    assert (await failing(script, grpc)).startswith(f"what listens at {grpc} is no Nerve")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    other = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        for page in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.0 200 OK\r\n\r\n<p>hello</p>"):
            said = page
            printed = await failing(script, other)
            assert printed.startswith(f"what listens at {other} is no Nerve")


async def test_every_example_is_run(examples: Path) -> None:
    """A new one is to get a test; entities.py has one in tests/e2e, async.py in tests/async."""
    there = {file.name for file in examples.iterdir() if file.is_file()}
    assert there == {
        "async.py", "baseten.py", "curl.sh", "entities.py", "grpcurl.sh", "nerve_python.py",
        "tritonclient_grpc.py", "tritonclient_http.py", "tritonclient_stream.py",
    }  # fmt: skip
