"""`nerve models` against the real daemon, and against what is no daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from commands import run_here
from support import Daemon, running_server


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert (self.status, self.err) == (0, ""), self
        return json.loads(self.out)


async def models(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """`nerve models …`, without a terminal, in a thread of this process."""
    ended = await asyncio.to_thread(run_here, "models", *arguments, env=env)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


async def models_apart(*arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """In a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nerve", "models", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out.decode(), err.decode())


def rows(table: str) -> list[list[str]]:
    """Words of each line of a table, without its head."""
    head, *lines = table.splitlines()
    assert head.split() == ["MODEL", "VERSION", "STATE", "DEFAULT", "REASON"]
    return [line.split() for line in lines]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def explicit_daemon(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Daemon]:
    """In mode explicit: `bert`, and two models not loaded at start, of which one cannot be.

    Tests leave loaded what they found loaded.
    """
    repository = tmp_path_factory.mktemp("explicit") / "repository"
    for name in ("bert", "roberta"):
        shutil.copytree(tiny_models / name, repository / name)
    shutil.copytree(tiny_models / "bert", repository / "broken" / "3")
    (repository / "broken" / "3" / "model.onnx").write_bytes(b"no graph")
    arguments = ["--model-control-mode", "explicit", "--load-model", "bert"]
    async with running_server(str(repository), *arguments) as running:
        yield running


async def test_a_models_life(explicit_daemon: Daemon, tmp_path: Path) -> None:
    """Listed, loaded, changed, loaded with another config, unloaded; told in tables."""
    env = {"NERVE_URL": explicit_daemon.url}
    ended = await models_apart("list", env=env)
    assert (ended.status, ended.err) == (0, "")
    assert [row[:3] for row in rows(ended.out) if row[0] == "bert"] == [["bert", "1", "READY"]]
    assert [row[0] for row in rows(ended.out)] == ["bert", "broken", "roberta"]

    ended = await models_apart("load", "roberta", env=env)
    assert rows(ended.out) == [["roberta", "1", "READY"]]
    assert (ended.status, ended.err) == (0, "")
    config = tmp_path / "small.yaml"
    config.write_text("max_batch_size: 3\nversion_policy: {specific: {versions: [1]}}\n")
    assert (await models("load", "roberta", "--config", str(config), env=env)).status == 0
    about = (await models("status", "roberta", "--json", env=env)).json()
    assert about["limits"]["max_batch_size"] == 3
    assert (
        await models("load", "roberta", "--config", '{"max_batch_size":4}', env=env)
    ).status == 0
    ended = await models("status", "roberta", env=env)
    assert ["limits.max_batch_size", "4"] in [line.split() for line in ended.out.splitlines()]

    ended = await models_apart("unload", "roberta", "--wait", env=env)
    assert rows(ended.out) == [["roberta", "1", "UNAVAILABLE", "unloaded"]]


async def test_json(explicit_daemon: Daemon) -> None:
    """One document a command, joined of index and list."""
    listed = (await models("list", "--json", "--url", explicit_daemon.url)).json()["models"]
    assert [each["name"] for each in listed] == ["bert", "broken", "roberta"]
    bert = listed[0]
    assert bert["default"] in (True, False)
    assert (bert["state"], bert["reason"]) == ("READY", "")
    assert bert["versions"] == [{"version": "1", "state": "READY", "reason": ""}]
    (unloaded,) = (
        await models("unload", "bert", "--json", "--wait", "--url", explicit_daemon.url)
    ).json()["models"]
    assert unloaded["versions"][0]["state"] == "UNAVAILABLE"
    (loaded,) = (await models("load", "bert", "--json", "--url", explicit_daemon.url)).json()[
        "models"
    ]
    assert loaded["versions"] == [{"version": "1", "state": "READY", "reason": ""}]
    status = (await models("status", "bert", "--json", "--url", explicit_daemon.url)).json()
    assert (status["name"], status["versions"][0]["device"]) == ("bert", "cpu")


async def test_what_the_server_refuses(explicit_daemon: Daemon, tmp_path: Path) -> None:
    """Its own words on stderr, exit 1, nothing on stdout."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("max_batchsize: 3\n")
    for arguments, told in [
        (["load", "broken"], "failed to load 'broken': version 3: "),
        (["load", "nope"], "model 'nope' is not in the repository; it holds: bert, broken"),
        (["unload", "nope"], "model 'nope' is not in the repository"),
        (["status", "nope"], "model 'nope' is not in the repository"),
        (["load", "bert", "--config", str(bad)], "did you mean 'max_batch_size'?"),
        (["load", "bert", "--config", "{"], "not valid JSON"),
    ]:
        ended = await models(*arguments, "--url", explicit_daemon.url)
        assert (ended.status, ended.out) == (1, ""), ended
        assert ended.err.startswith("Error: ")
        assert told in ended.err


async def test_control_is_off_by_default(tiny_daemon: Daemon) -> None:
    """Looking is always allowed."""
    assert (await models("list", "--url", tiny_daemon.url)).status == 0
    for verb in ("load", "unload"):
        ended = await models(verb, "bert", "--url", tiny_daemon.url)
        assert ended.status == 1
        assert "--allow-model-control" in ended.err


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A port that answers every connection so; None never answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if answer is not None:
                await reader.read(1)
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_nobody_there() -> None:
    """Says where it looked, and what to do; a server that is silent is told apart."""
    ended = await models_apart("list", "--url", "http://127.0.0.1:1")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "Error: no server answers at http://127.0.0.1:1 (Connection refused); start one with nerve "
        "serve, or name it with --url\n"
    )
    # nobody's proxy is asked for this machine's own loopback
    proxied = await models(
        "list", env={"NERVE_URL": "127.0.0.1:1", "http_proxy": "http://x.test:9"}
    )
    assert "no server answers at http://127.0.0.1:1 (Conn" in proxied.err
    async with answering(None) as url:
        ended = await models("load", "m", "--url", url, "--timeout", "0.2")
        assert (ended.status, ended.out) == (1, "")
        assert "did not answer within 0.2 s" in ended.err
    async with answering(b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        ended = await models("status", "m", "--url", url)
        assert (ended.status, ended.out) == (1, "")
        assert "is no Nerve HTTP server" in ended.err


async def test_help() -> None:
    """Without a command."""
    for arguments in ([], ["--help"]):
        ended = await models(*arguments)
        told = " ".join((ended.out + ended.err).split())
        for verb in ("list", "load", "unload", "status"):
            assert f" {verb} " in told


async def test_nothing_is_cut(explicit_daemon: Daemon) -> None:
    """In a pipe a row is a line, whatever its length and FORCE_COLOR; a terminal gets it folded."""
    await models("load", "broken", "--url", explicit_daemon.url)
    listed = (await models("list", "--json", "--url", explicit_daemon.url)).json()["models"]
    (reason,) = [each["reason"] for each in listed[1]["versions"]]
    ended = await models_apart(
        "list", "--url", explicit_daemon.url, env={"FORCE_COLOR": "1", "COLUMNS": "20"}
    )
    assert any(line.endswith(" ".join(reason.split())) for line in ended.out.splitlines())
    assert "\x1b" not in ended.out
    seen = await asyncio.to_thread(in_terminal, "list", "--url", explicit_daemon.url)
    assert "READY" in seen
    assert "\x1b[" in seen
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert max(map(len, plain.splitlines())) <= 80
    assert "".join(reason.split())[:200] in "".join(re.sub(r"\n +", "", plain).split())


def in_terminal(*arguments: str) -> str:
    """What `nerve models …` writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "nerve", "models", *arguments]
    seen = b""
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    return seen.decode()
