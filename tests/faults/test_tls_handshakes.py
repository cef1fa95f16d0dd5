"""Clients that connect to a server with TLS and never get as far as a request."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import trustme
from grpc_health.v1 import health_pb2 as health

from faults.mistreated import (
    ONE,
    PATIENCE_S,
    Served,
    calm,
    post,
    serving,
    statuses,
    to_the_end,
    until,
)
from faults.test_many_connections import silent
from nerve.security.keys import new_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = 500
KEY, DIGEST = new_key()
HANDSHAKE_S = 1.0


@dataclass(frozen=True)
class Secured:
    """A daemon with TLS and keys, and its authority."""

    served: Served
    ca: trustme.CA

    async def tell(self, *parts: bytes) -> bytes:
        """See `Served.tell`; a handshake first."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.served.http, ssl=context
            )
            try:
                for part in parts:
                    writer.write(part)
                return await to_the_end(reader)
            finally:
                writer.transport.abort()

    async def lives(self) -> bool:
        """Whether it answers over HTTP on a new connection."""
        asked = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return statuses(await self.tell(asked)) == [200]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Secured]:
    """It has few files."""
    folder, ca = tmp_path_factory.mktemp("secured"), trustme.CA()
    log = folder / "stderr"
    own = ca.issue_cert("127.0.0.1", "localhost")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    entry = {"name": "tests", "sha256": DIGEST}
    (folder / "keys.yaml").write_text(json.dumps({"keys": [entry | {"scopes": ["predict"]}]}))
    flags = "--cert-file", "cert.pem", "--key-file", "key.pem", "--api-keys-file", "keys.yaml"
    paths = [each if each.startswith("--") else str(folder / each) for each in flags]
    more = "--head-timeout", f"{HANDSHAKE_S:g}", "--metrics-port", "0"
    async with serving(repository, log, *paths, *more, shell=f"ulimit -n {FILES}") as served:
        yield Secured(served, ca)
        served.terminate()
        assert await served.ended() == 0
    told = log.read_text()
    calm(told)
    assert "descriptor limit" not in told
    assert len(told.splitlines()) < 20, told


async def test_silent_clients_take_nobodys_place(secured: Secured) -> None:
    """Twice as many as there are files, which never say a word: every port answers, all the time."""
    served = secured.served
    before = served.files()
    credentials = grpc.ssl_channel_credentials(secured.ca.cert_pem.bytes())
    with silent(served, 2 * FILES):
        for _ in range(5):
            assert await secured.lives()
        channel: Any = grpc.aio.secure_channel(f"localhost:{served.ports['grpc']}", credentials)
        async with channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = await check(health.HealthCheckRequest().SerializeToString(), timeout=30)
            assert health.HealthCheckResponse.FromString(answer).status == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", served.ports["metrics"])
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert statuses(await to_the_end(reader)) == [200]
        writer.close()
        assert served.files() < FILES
    await until(lambda: served.files() <= before, "all are closed")
    assert await secured.lives()


async def test_a_handshake_must_end_in_time(secured: Secured) -> None:
    """Whether the client says nothing or a little."""
    for start in (b"", b"\x16\x03\x01\x02\x00"):
        reader, writer = await asyncio.open_connection("127.0.0.1", secured.served.http)
        writer.write(start)
        began = time.monotonic()
        async with asyncio.timeout(HANDSHAKE_S * 2):
            with suppress(ConnectionError):
                assert len(await reader.read()) < 100  # an alert at most
        assert time.monotonic() - began > HANDSHAKE_S / 2
        writer.close()


async def test_a_body_is_asked_for_only_of_those_who_may_ask(secured: Secured) -> None:
    head, body = post("bert", ONE, "Expect: 100-continue", "Connection: close").split(b"\r\n\r\n")
    assert statuses(await secured.tell(head + b"\r\n\r\n")) == [401]
    known = head + b"\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    assert statuses(await secured.tell(known, body)) in ([100, 200], [200])
    unsent = asyncio.create_task(secured.tell(known))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(unsent, 0.2)
