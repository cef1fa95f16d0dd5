"""`nerve bench` against the real daemon, and against none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from commands import run_here
from support import Daemon, running_server

QUICK = ("--duration", "0.3", "--warm-up", "0.1")


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """`nerve bench …`, without a terminal."""
    env = {key: value for key, value in os.environ.items() if key != "NERVE_URL"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nerve", "bench", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env,
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def bench(*arguments: str) -> tuple[int | None, str, str]:
    return await ended(await start(*arguments))


def bench_here(*arguments: str) -> tuple[int, str, str]:
    """In this process."""
    done = run_here("bench", *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def statistics(daemon: Daemon) -> dict[str, Any]:
    async with ClientSession() as http, http.get(f"{daemon.url}/v1/models/bert") as response:
        found: dict[str, Any] = (await response.json())["versions"][0]["statistics"]
        return found


async def test_the_figures_are_the_daemon_s(tiny_daemon: Daemon) -> None:
    before = await statistics(tiny_daemon)
    arguments = ("-c", "8", "-n", "100", "--batch", "2", "--warm-up", "0", "-f", "json")
    status, out, err = await bench("bert", "--url", tiny_daemon.url, *arguments)
    after = await statistics(tiny_daemon)
    assert status == 0, err
    (each,) = json.loads(out)["rows"]
    ran = {key: after[key] - before[key] for key in ("batches", "rows", "tokens", "padded_tokens")}
    assert (each["requests"], ran["rows"], each["failed"]) == (100, 200, {})
    assert each["mean_batch"] == pytest.approx(ran["rows"] / ran["batches"], abs=1e-3)
    waste = 1 - ran["tokens"] / ran["padded_tokens"]
    assert each["padding_waste"] == pytest.approx(waste, abs=1e-3)
    assert each["tokens_per_s"] == pytest.approx(ran["tokens"] / each["seconds"], rel=1e-2)


def test_a_table_for_people(tiny_daemon: Daemon) -> None:
    status, out, err = bench_here("bert", "--url", tiny_daemon.url, "-c", "1,4", *QUICK)
    head, *lines = out.splitlines()
    assert status == 0
    assert head.split()[:2] == ["CALLERS", "TEXTS/S"]
    assert [line.split()[0] for line in lines] == ["1", "4"]
    assert err == f"bert in {tiny_daemon.url}: 100 different texts, 1 a request, 0.3 s a row\n"


def test_requests_that_a_server_refuses(tiny_daemon: Daemon) -> None:
    """More texts than it takes at once: counted, told, and the exit status of no answer at all."""
    arguments = ("--url", tiny_daemon.url, "-c", "2", "-n", "4", "--batch", "200", "--warm-up", "0")
    status, out, err = bench_here("bert", *arguments)
    assert status == 1
    assert "4 (4 413 Validation)" in out
    assert "413 Validation: batch size 200 > maximum allowed batch size 128" in err


def test_what_is_not_there(tiny_daemon: Daemon) -> None:
    status, out, err = bench_here("nobody", "--url", tiny_daemon.url)
    assert (status, out) == (1, "")
    assert "Error: model 'nobody' is not in the repository; it holds: bert\n" in err
    status, out, err = bench_here("bert", "--url", "http://127.0.0.1:1")
    assert (status, out) == (1, "")
    assert "no server answers at http://127.0.0.1:1" in err
    assert "start one with nerve serve" in err


async def test_a_model_that_is_not_ready(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"no graph")
    async with running_server(str(tmp_path)) as daemon:
        status, out, err = await bench("broken", "--url", daemon.url)
    assert (status, out) == (1, "")
    assert "Error: no version of model 'broken' is READY: " in err


async def test_ctrl_c_shows_what_there_is(tiny_daemon: Daemon) -> None:
    arguments = ("-c", "2", "-d", "60", "--warm-up", "0", "-f", "json")
    before = (await statistics(tiny_daemon))["rows"]
    process = await start("bert", "--url", tiny_daemon.url, *arguments)
    async with asyncio.timeout(60):
        while (await statistics(tiny_daemon))["rows"] < before + 50:
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    status, out, _ = await ended(process)
    assert status == 130
    (each,) = json.loads(out)["rows"]
    assert each["requests"] >= 45
    assert each["seconds"] < 60
    assert each["mean_batch"] is not None


async def test_a_daemon_that_ends_in_the_middle(tmp_path: Path, tiny_models: Path) -> None:
    """The requests that fail are told by kind; the row is there."""
    async with running_server(str(tiny_models / "bert")) as daemon:
        arguments = ("-c", "2", "-d", "3", "--warm-up", "0")
        process = await start("bert", "--url", daemon.url, *arguments)
        async with asyncio.timeout(60):
            while (await statistics(daemon))["rows"] < 50:
                await asyncio.sleep(0.05)
        daemon.stop()
        status, out, _ = await ended(process)
    assert status == 0
    assert "no connection" in out
