"""What outlives a daemon, what keys see, where webhooks may be by default, and who may have a store."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from faults.mistreated import Served, calm, serving
from later import Later
from nerve.security.keys import PREFIX

KEYS = ("alice", "bob")


def secret(name: str) -> str:
    return PREFIX + name.ljust(43, "0")


@asynccontextmanager
async def keyed(
    repository: Path, folder: Path, *more: str
) -> AsyncIterator[tuple[Served, Mapping[str, Later]]]:
    """A daemon with keys on the store of that folder, and a client of each; it is to end well."""
    keys, log = folder / "keys.yaml", folder / "stderr"
    digests = {name: hashlib.sha256(secret(name).encode()).hexdigest() for name in KEYS}
    entries = [
        {"name": name, "sha256": digest, "scopes": ["predict", "read"]}
        for name, digest in digests.items()
    ]
    keys.write_text(yaml.safe_dump({"keys": entries}))
    keys.chmod(0o600)
    arguments = (
        "--async-store", str(folder / "jobs.db"), "--default-model", "bert",
        "--api-keys-file", str(keys), *more,
    )  # fmt: skip
    async with serving(repository, log, *arguments) as daemon:
        sent = {name: {"Authorization": f"Bearer {secret(name)}"} for name in KEYS}
        sessions = {name: aiohttp.ClientSession(daemon.url, headers=sent[name]) for name in KEYS}
        try:
            yield daemon, {name: Later(session) for name, session in sessions.items()}
        finally:
            await asyncio.gather(*(session.close() for session in sessions.values()))
        daemon.terminate()
        assert await daemon.ended() == 0
    calm(log.read_text())


async def test_a_store_outlives_its_server(repository: Path, tmp_path: Path) -> None:
    """Results are still there; what was in progress at SIGTERM is answered by the next server."""
    async with keyed(repository, tmp_path, "--shutdown-timeout", "0.3") as (_, clients):
        alice, bob = (clients[name] for name in KEYS)
        done = await alice.submit("Ada lived in London")
        await alice.until(done, "SUCCEEDED")
        answer = await alice.result(done)
        await _is_not_there(bob, done)
        running = await alice.submit("Ada", model="patient")
        await alice.until(running, "IN_PROGRESS")
        await _is_not_there(bob, running)
        await _is_refused_by_default(bob)
        await _belongs_to_one_server(repository, tmp_path / "jobs.db")
    async with keyed(repository, tmp_path) as (_, clients):
        alice, bob = (clients[name] for name in KEYS)
        assert await alice.result(done) == answer
        await _is_not_there(bob, done)
        await alice.until(running, "IN_PROGRESS")  # again, at once: it was given back
        _, at_once = await bob.send(
            "POST", "/v1/models/patient/predict_tokens",
            {"inputs": "Ada", "aggregation_strategy": "simple"},
        )  # fmt: skip
        assert (await alice.until(running, "SUCCEEDED"))["errors"] == []
        assert await alice.result(running) == (200, at_once)


async def _is_not_there(stranger: Later, request_id: str) -> None:
    """Nobody sees what another key has asked, nor that there is anything."""
    for method, end in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        status, told = await stranger.send(method, f"/async_request/{request_id}{end}")
        assert (status, told["error"].split(";")[0]) == (
            404,
            f"there is no async request '{request_id}'",
        )


async def _is_refused_by_default(client: Later) -> None:
    """Webhooks in private networks, at this machine, and by plain http."""
    for url, words in (
        ("https://10.1.2.3/hook", "'10.1.2.3' is not on the public internet"),
        ("https://[::1]/hook", "'::1' is not on the public internet"),
        ("https://localhost:8443/hook", "'localhost' is not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "'169.254.169.254' is not on the public"),
        ("http://example.com/hook", "expected https://"),
    ):
        body = {"model_input": {"inputs": "Ada"}, "webhook_endpoint": url}
        status, told = await client.send("POST", "/async_predict", body)
        assert status == 422, told
        assert told["error"].startswith(f"webhook_endpoint: {words}")
        assert "--async-webhook-networks" in told["error"]


async def _belongs_to_one_server(repository: Path, store: Path) -> None:
    """A second one says so, in a line, and ends."""
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nerve", "serve", str(repository), "--async-store", str(store),
        "--http-port", "0", "--disable-grpc", "--no-prove-models",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await second.communicate()
    assert (second.returncode, out) == (1, b"")
    (line,) = err.decode().strip().splitlines()
    assert f"--async-store {store}: " in line
