"""The real daemon: its lines, the contracts' examples over the wire, signals, bad set-ups."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from commands import run_here
from support import Daemon, running_server

APPLE = "Apple is looking at buying U.K. startup for $1 billion"


def nerve(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "nerve", *arguments],
        capture_output=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )


async def test_lines_and_contract_examples(bundled_daemon: Daemon) -> None:
    """What it prints, and the examples of both formats (contracts: baseten 1, encoderfile 1)."""
    ports, output = bundled_daemon.ports, bundled_daemon.output
    async with aiohttp.ClientSession(bundled_daemon.url) as http:
        assert output[0] == f"Starting HTTP server on 127.0.0.1:{ports['http']}"
        assert "Model: minilm-ner v1" in output
        async with http.get("/health") as answer:
            assert await answer.text() == '"OK!"'
        async with http.get("/readyz") as answer:
            assert answer.status == 200

        body = {
            "inputs": [[APPLE]],
            "truncate": True,
            "raw_scores": False,
            "aggregation_strategy": "max",
        }
        async with http.post("/predict_tokens", json=body) as answer:
            assert answer.status == 200
            found = await answer.json()
        assert [
            (e["token"], e["token_id"], e["start"], e["end"], *e["results"]) for e in found[0]
        ] == [("Apple", 0, 0, 5, "ORG"), ("U.K.", 0, 27, 31, "LOC")]

        body = {"inputs": [[APPLE]], "raw_scores": True, "aggregation_strategy": "none"}
        async with http.post("/predict_tokens", json=body) as answer:
            first = (await answer.json())[0][0]
        assert first["token"] == "Apple"
        assert first["token_id"] == 6207  # the lower-case piece, as on Baseten's page
        assert len(first["results"]) == 9
        assert max(first["results"], key=first["results"].__getitem__) == "B-ORG"

        texts = ["Mozilla is headquartered in San Fancisco, CA"]
        async with http.post("/predict", json={"inputs": texts}) as answer:
            page = await answer.json()
        assert page["model_id"] == "minilm-ner"
        token = page["results"][0]["tokens"][0]
        assert token["token_info"] == {"token": "mo", "token_id": 9587, "start": 0, "end": 2}
        assert token["label"] == "B-ORG"
        assert np.float32(token["score"]) == np.float32(max(token["scores"]))

        texts = [
            "Yvon Chouinard founded Patagonia in 1957.",
            "The Eiffel Tower is located in Paris, France.",
        ]
        body = {"inputs": texts, "aggregation_strategy": "max"}
        async with http.post("/predict_tokens", json=body) as answer:
            found = await answer.json()
        assert {e["token"]: next(iter(e["results"])) for e in found[0]}["Yvon Chouinard"] == "PER"
        places = {e["token"]: next(iter(e["results"])) for e in found[1]}
        assert places["Paris"] == places["France"] == "LOC"


async def test_every_family_loads_without_config(tiny_models: Path) -> None:
    """BERT, DistilBERT, RoBERTa, XLM-R and DeBERTa-v2 export folders are served as they are."""
    families = sorted(path.name for path in tiny_models.iterdir())
    async with (
        running_server(str(tiny_models)) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        async with http.get("/v1/models") as answer:
            models = (await answer.json())["models"]
        assert [model["name"] for model in models] == families
        assert {model["state"] for model in models} == {"READY"}
        for family in families:
            body = {"inputs": "Zoë met 李明 in São Paulo.", "ignore_labels": []}
            url = f"/v1/models/{family}/predict_tokens"
            async with http.post(url, json=body) as answer:
                (tokens,) = await answer.json()
            assert len(tokens) >= 6, family
        async with http.post("/predict_tokens", json={"inputs": "a"}) as answer:
            assert answer.status == 404
            assert "--default-model" in (await answer.json())["error"]


async def test_sigterm_finishes_requests_in_flight(tiny_repository: Path) -> None:
    """A request whose body is half sent when the signal comes is answered, then exit 0."""
    async with running_server(str(tiny_repository), "--default-model", "bert") as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports["http"])
        body = b'{"inputs":["Ada met Charles in London"]}'
        head = (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
        )
        writer.write(head)
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")  # the handler reads the body
        daemon.stop()
        await _until_refused(daemon.ports["http"])
        writer.write(body)
        assert b"200 OK" in await reader.readline()
        assert b"London" not in await reader.read()  # pieces are lower case
        writer.close()


async def test_sigterm_does_not_wait_for_ever(tiny_repository: Path) -> None:
    """A client that never sends the rest of its body is given up after shutdown_timeout_s."""
    env = {"NERVE_BODY_TIMEOUT_S": "3600", "NERVE_SHUTDOWN_TIMEOUT_S": "0.1"}
    async with running_server(str(tiny_repository), "--disable-grpc", env=env) as daemon:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports["http"])
        writer.write(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
    assert daemon.process.returncode == 0
    writer.close()


async def test_sigterm_does_not_cut_an_answer(tiny_repository: Path) -> None:
    """A client that reads slowly gets all of a large answer that was being written."""
    async with running_server(str(tiny_repository), "--disable-grpc") as daemon:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", daemon.ports["http"], limit=1 << 16
        )
        body = json.dumps({"inputs": ["London calling " * 20] * 500}).encode()
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length: ")[1].split("\r\n")[0])
        assert length > 5_000_000  # more than the sockets hold
        daemon.stop()
        await _until_refused(daemon.ports["http"])
        received = 0
        while part := await reader.read(1 << 16):
            received += len(part)
        assert received == length
        writer.close()


async def _until_refused(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def test_broken_models_do_not_stop_the_others(tiny_repository: Path) -> None:
    """They are listed with their reason; the good one answers, also as the default."""
    (tiny_repository / "broken" / "1").mkdir(parents=True)
    (tiny_repository / "broken" / "1" / "model.onnx").write_bytes(b"not a graph")
    (tiny_repository / "broken" / "1" / "tokenizer.json").write_bytes(b"{}")
    shutil.copytree(tiny_repository / "bert", tiny_repository / "typo")
    (tiny_repository / "typo" / "config.yaml").write_text("max_batchsize: 4\nlables: [a]\n")
    (tiny_repository / "gpu").mkdir()
    shutil.copytree(tiny_repository / "bert", tiny_repository / "gpu" / "3")
    (tiny_repository / "gpu" / "config.yaml").write_text("instance_group: {kind: KIND_GPU}\n")
    async with (
        running_server(str(tiny_repository)) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        async with http.get("/v1/models") as answer:
            models = {model["name"]: model for model in (await answer.json())["models"]}
        assert {name: model["state"] for name, model in models.items()} == {
            "bert": "READY",
            "broken": "UNAVAILABLE",
            "gpu": "UNAVAILABLE",
            "typo": "UNAVAILABLE",
        }
        assert "KIND_GPU" in models["gpu"]["reason"]
        assert "'max_batch_size'" in models["typo"]["reason"]
        assert "'labels'" in models["typo"]["reason"]
        async with http.post("/predict", json={"inputs": ["Ada"]}) as answer:
            assert answer.status == 200
        async with http.post("/v1/models/typo/predict_tokens", json={"inputs": "a"}) as answer:
            assert answer.status == 503
            assert "max_batchsize" in (await answer.json())["error"]


async def test_settings_from_environment_and_file(tiny_repository: Path, tmp_path: Path) -> None:
    """A flag wins over a variable, a variable over the file."""
    file = tmp_path / "nerve.yaml"
    file.write_text("offset_unit: utf16\nmax_client_batch_size: 2\nlog_level: error\n")
    env = {"NERVE_OFFSET_UNIT": "byte", "NERVE_REPOSITORIES": str(tiny_repository)}
    async with (
        running_server("--config", str(file), env=env) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        body: dict[str, object] = {"inputs": "é Ada", "ignore_labels": []}
        async with http.post("/predict_tokens", json=body) as answer:
            assert (await answer.json())[0][-1]["end"] == 6
        async with http.post("/predict_tokens", json={"inputs": ["a", "b", "c"]}) as answer:
            assert answer.status == 413


def test_wrong_set_ups_end_with_one_clear_message(tiny_repository: Path, tmp_path: Path) -> None:
    """Each names what is wrong, without a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases: list[tuple[list[str], int, str]] = [
            (["serve", str(tmp_path / "nowhere")], 1, "there is no such folder"),
            (["serve", "--http-port", "99999", str(tiny_repository)], 2, "http_port"),
            (["serve", "--http-port", "x"], 2, "--http-port"),
            (["serve", "--htp-port", "1"], 2, "--htp-port"),
            (["serve", "--disable-http", "--disable-grpc"], 2, "Cannot disable both"),
            (["serve", "--log-level", "loud"], 2, "log_level"),
            (["serve", "--config", str(tmp_path / "no.yaml")], 2, "cannot be read"),
            (
                ["serve", "--http-port", port, "--disable-grpc", str(tiny_repository)],
                1,
                "in use",
            ),
        ]
        for arguments, status, message in cases:
            # what is told before anything is started needs no process of its own
            ended = run_here(*arguments) if status == 2 else nerve(*arguments)
            told = ended.stderr.decode()
            assert ended.returncode == status, (arguments, told)
            assert message in told.replace("\n", " "), (arguments, told)
            assert "Traceback" not in told, arguments


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ModuleNotFoundError('No module', name='onnxruntime')", "nerve-server[cpu]"),
        ("ImportError('libcudart.so.13: cannot open')", "libcudart.so.13: cannot open"),
    ],
)
def test_missing_runtime_is_one_sentence(
    tiny_repository: Path, tmp_path: Path, fault: str, words: str
) -> None:
    """Neither onnxruntime nor onnxruntime-gpu, or a broken one: exit 2."""
    (tmp_path / "onnxruntime.py").write_text(f"raise {fault}")
    ended = nerve("serve", str(tiny_repository), env={"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 2
    assert ended.stderr.count(b"\n") == 1
    assert words in ended.stderr.decode()


async def test_goes_on_when_nobody_reads_its_lines(tiny_repository: Path) -> None:
    """`nerve serve | head -1`, or a supervisor that has what it wants."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nerve", "serve", "--http-port", "0", "--disable-grpc",
        str(tiny_repository), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    port = int((await process.stdout.readline()).decode().rsplit(":", 1)[1])
    process.stdout._transport.close()  # type: ignore[attr-defined]
    async with asyncio.timeout(30), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        while True:
            async with http.get("/readyz") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_a_folder_with_an_odd_name_does_no_harm(tiny_repository: Path) -> None:
    """Bytes that are no UTF-8: listed in a printable form, beside the good model."""
    Path(os.fsdecode(os.fsencode(tiny_repository) + b"/\xff")).mkdir()
    async with (
        running_server(str(tiny_repository), "--disable-grpc") as daemon,
        aiohttp.ClientSession(daemon.url) as http,
        http.get("/readyz") as answer,
    ):
        assert answer.status == 200
        assert (await answer.json())["models"] == {"\\xff": "UNAVAILABLE", "bert": "READY"}


async def test_second_signal_ends_at_once(tiny_repository: Path) -> None:
    """Somebody who presses Ctrl-C twice does not wait for slow clients."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nerve", "serve", "--http-port", "0", "--disable-grpc",
        str(tiny_repository), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    port = int((await process.stdout.readline()).decode().rsplit(":", 1)[1])
    while not (await process.stdout.readline()).startswith(b"{"):
        pass
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    process.send_signal(signal.SIGINT)
    await _until_refused(port)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        await process.communicate()
    assert process.returncode == 1
    writer.close()
