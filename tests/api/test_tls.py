"""TLS on both ports: with and without clients' certificates, garbage, and files that change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import nerve_client
import pytest
import trustme
from grpc_health.v1 import health_pb2

from api.conftest import Repository, in_thread, settings
from commands import run_here
from grpc_calls import LISTENING, Caller

if TYPE_CHECKING:
    from api.conftest import Server

PATIENCE_S = 60.0
LOOK_S = 0.1
"""Time between two looks at the files."""


@dataclass(frozen=True)
class Pki:
    """An authority for the server's certificates and one for the clients', and where files are."""

    folder: Path
    ca: trustme.CA
    clients: trustme.CA

    @property
    def files(self) -> dict[str, Path]:
        """By the names of settings."""
        return {
            "cert_file": self.folder / "cert.pem",
            "key_file": self.folder / "key.pem",
            "client_ca_file": self.folder / "clients.pem",
        }

    def write(self, clients: trustme.CA | None = None) -> None:
        """A new certificate of the server."""
        made = self.ca.issue_cert("127.0.0.1", "localhost")
        made.private_key_pem.write_to_path(self.files["key_file"])
        self.files["key_file"].chmod(0o600)
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        self.files["cert_file"].write_bytes(chain)
        (clients or self.clients).cert_pem.write_to_path(self.files["client_ca_file"])


@dataclass(frozen=True)
class Peer:
    """A client, with a certificate if it is of an authority."""

    pki: Pki
    http: int
    grpc: int
    own: trustme.LeafCert | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP."""
        context = ssl.create_default_context()
        self.pki.ca.configure_trust(context)
        if self.own is not None:
            self.own.configure_cert(context)
        return context

    async def over_http(self) -> bytes | None:
        """The server's certificate if it answers on a new connection, None if it hangs up."""
        writer = None
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.http, ssl=self.context()
            )
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head = await reader.readline()
            if not head:  # with TLS 1.3 a server refuses a client after its handshake
                return None
            assert head.split()[1] == b"200"
            certificate = writer.get_extra_info("ssl_object").getpeercert(True)
            assert await reader.read()
            return bytes(certificate)
        except (ssl.SSLError, ConnectionError):
            return None
        finally:
            if writer is not None:
                writer.close()
                with suppress(ssl.SSLError, ConnectionError):
                    await writer.wait_closed()

    async def over_grpc(self) -> bool:
        """Whether it answers on a new connection."""
        key = chain = None
        if self.own is not None:
            key = self.own.private_key_pem.bytes()
            chain = b"".join(each.bytes() for each in self.own.cert_chain_pems)
        credentials = grpc.ssl_channel_credentials(self.pki.ca.cert_pem.bytes(), key, chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = f"127.0.0.1:{self.grpc}"
        async with grpc.aio.secure_channel(target, credentials, options) as channel:
            caller = Caller(channel, "grpc.health.v1.Health")
            try:
                answer = await caller.call(
                    "Check", b"", health_pb2.HealthCheckResponse, timeout=PATIENCE_S
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki"), trustme.CA(), trustme.CA())
    made.write()
    return made


@pytest.fixture(scope="module")
def mutual(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path, pki: Pki
) -> Iterator[Server]:
    """A server that wants certificates of clients."""
    repository = Repository(tmp_path_factory.mktemp("mutual"), tiny_models)
    repository.add("bert")
    config = settings(repository.path, **pki.files, hsts_max_age_s=3600, **LISTENING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nerve.security.security.LOOK_S", LOOK_S)
        with in_thread(config) as server:
            yield server


def ports(server: Server) -> tuple[int, int]:
    """Of HTTP and gRPC, as they are announced with TLS."""
    found = [line.removesuffix(", with TLS") for line in server.announced if "server on" in line]
    assert all(f"{line}, with TLS" in server.announced for line in found)
    http, rpc = (int(line.rpartition(":")[2]) for line in found)
    return http, rpc


def peer(server: Server, pki: Pki, authority: trustme.CA | None) -> Peer:
    own = None if authority is None else authority.issue_cert("client@example.org")
    return Peer(pki, *ports(server), own)


async def test_a_client_needs_a_certificate(mutual: Server, pki: Pki) -> None:
    """Of that authority, not of another one."""
    known = peer(mutual, pki, pki.clients)
    assert await known.over_http()
    assert await known.over_grpc()
    for stranger in (peer(mutual, pki, None), peer(mutual, pki, trustme.CA())):
        assert await stranger.over_http() is None
        assert not await stranger.over_grpc()


@pytest.fixture
def shown(pki: Pki, tmp_path: Path) -> dict[str, Path]:
    """Files of a client, `both` with certificate and key, and the certificate of a stranger."""
    files = {each: tmp_path / f"{each}.pem" for each in ("ca", "cert", "key", "both", "stranger")}
    own, other = (each.issue_cert("client@example.org") for each in (pki.clients, trustme.CA()))
    pki.ca.cert_pem.write_to_path(files["ca"])
    own.cert_chain_pems[0].write_to_path(files["cert"])
    own.private_key_pem.write_to_path(files["key"])
    own.private_key_and_cert_chain_pem.write_to_path(files["both"])
    other.private_key_and_cert_chain_pem.write_to_path(files["stranger"])
    return files


async def test_the_command_line(mutual: Server, shown: dict[str, Path]) -> None:
    """It shows a certificate, and says what to do where something is amiss."""
    place = f"127.0.0.1:{ports(mutual)[0]}"
    listing = ("models", "list", "--url", f"https://{place}")
    trusting = (*listing, "--ca-file", shown["ca"])
    own = ("--cert-file", shown["cert"], "--key-file", shown["key"])
    by_variables = {
        "NERVE_CLIENT_CERT_FILE": str(shown["both"]),
        "NERVE_URL": f"https://{place}",
        "SSL_CERT_FILE": str(shown["ca"]),
    }
    bench = ("bench", "bert", "-c", "1", "-n", "1", "--warm-up", "0")
    for line, env, told in (
        ((*trusting, *own), {}, ""),
        (("models", "status", "bert"), by_variables, ""),
        (bench, by_variables, ""),
        (trusting, {}, "--cert-file and --key-file"),
        ((*trusting, "--cert-file", shown["stranger"]), {}, "take the certificate in --cert-file"),
        ((*listing, *own), {}, "is not trusted"),
        (("models", "list", "--url", place), {}, "try https://"),
        (listing, {"SSL_CERT_FILE": "/nope.pem"}, "SSL_CERT_FILE: /nope.pem cannot be read"),
        ((*trusting, "--cert-file", shown["cert"]), {}, "are no certificate and key in PEM"),
    ):
        ended = await asyncio.to_thread(run_here, *line, env=env)
        said = ended.stderr.decode()
        assert (ended.returncode != 0, told in said) == (bool(told), True), (line, said)


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
async def test_the_python_client(mutual: Server, shown: dict[str, Path], scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{ports(mutual)[scheme == 'grpcs']}"
    ca, once = shown["ca"], nerve_client.Retry(attempts=1)
    files: dict[str, Any] = {"ca_file": ca, "cert_file": shown["cert"], "key_file": shown["key"]}
    both: dict[str, Any] = {"ca_file": ca, "cert_file": shown["both"]}
    for given in (files, both):
        async with nerve_client.AsyncClient(url, **given) as client:
            assert (await client.extract("London")).model == "bert"
        with nerve_client.Client(url, **given) as plain:
            assert (await asyncio.to_thread(plain.extract, "London")).model == "bert"
    for given in ({"ca_file": ca}, both | {"cert_file": shown["stranger"]}):
        async with nerve_client.AsyncClient(url, retry=once, **given) as client:
            with pytest.raises(nerve_client.ConnectionFailed):
                await client.extract("London")


async def test_browsers_are_told_to_stay(mutual: Server, pki: Pki) -> None:
    known = peer(mutual, pki, pki.clients)
    async with aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{known.http}/livez"
        async with session.get(url, ssl=known.context()) as answer:
            assert answer.headers["Strict-Transport-Security"] == "max-age=3600"


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 200, b"\x16\x03\x01\x00\x05hello", b""],
    ids=["plain HTTP", "zeros", "half a hello", "nothing"],
)
async def test_what_is_no_tls(
    mutual: Server, pki: Pki, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection ends, quietly, and others are answered."""
    for port in ports(mutual):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            got = await reader.read()
        assert len(got) < 100  # an alert at most
        assert b"HTTP" not in got
        writer.close()
        await writer.wait_closed()
    assert await peer(mutual, pki, pki.clients).over_http()
    said = [each for each in caplog.records if each.levelno >= logging.INFO]
    # asyncio's debug mode tells what is slow.
    assert [each.getMessage() for each in said if "took" not in each.getMessage()] == []


def failed(server: Server) -> float:
    """Changes that were not taken up."""
    labels = {"kind": "tls", "outcome": "failed"}
    name = "nerve_credential_reloads_total"
    return server.app.registry.get_sample_value(name, labels) or 0.0


async def test_files_change_under_load(mutual: Server, pki: Pki) -> None:
    """New connections get the new certificate, and none fails; a broken file changes nothing; a
    client whose authority was taken away is refused."""
    known = peer(mutual, pki, pki.clients)
    before = await known.over_http()
    async with callers(known) as failures:
        for broken in (False, True):
            seen = await known.over_http()
            if broken:
                pki.files["key_file"].write_text("-----BEGIN PRIVATE KEY-----\n")
                async with asyncio.timeout(PATIENCE_S):
                    while failed(mutual) == 0:
                        await asyncio.sleep(0.05)
                assert await known.over_http() == seen
            else:
                pki.write()
                async with asyncio.timeout(PATIENCE_S):
                    while await known.over_http() == before:
                        await asyncio.sleep(0.05)
                assert await known.over_grpc()
    assert failures == []
    others = trustme.CA()
    pki.write(clients=others)
    new = peer(mutual, pki, others)
    async with asyncio.timeout(PATIENCE_S):
        while await known.over_http() is not None:
            await asyncio.sleep(0.05)
    assert await new.over_http()
    assert await new.over_grpc()
    assert not await known.over_grpc()


@asynccontextmanager
async def callers(known: Peer) -> AsyncIterator[list[str]]:
    """Clients that connect all the time; yields what failed."""
    failures: list[str] = []
    stop = asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            if await known.over_http() is None:
                failures.append("http")
            if not await known.over_grpc():
                failures.append("grpc")

    tasks = [asyncio.create_task(call()) for _ in range(2)]
    try:
        yield failures
    finally:
        stop.set()
        await asyncio.gather(*tasks)
