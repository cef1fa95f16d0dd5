"""Files for TLS: what is refused at the start names the file and what would be right."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from nerve.errors import TlsInvalid
from nerve.security.tls import Tls


@dataclass(frozen=True)
class Files:
    """Of one server."""

    ca: trustme.CA
    folder: Path

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def client_ca(self) -> Path:
        return self.folder / "ca.pem"

    def write(self) -> None:
        """A new pair."""
        made = self.ca.issue_cert("localhost")
        made.private_key_pem.write_to_path(self.key)
        chain = b"".join(each.bytes() for each in made.cert_chain_pems)
        self.cert.write_bytes(chain)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> Files:
    files = Files(ca, tmp_path)
    files.write()
    ca.cert_pem.write_to_path(files.client_ca)
    return files


def encrypt(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )


def encrypt_as_of_old(files: Files) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x")
        )
    )


def other_key(files: Files) -> None:
    files.ca.issue_cert("localhost").private_key_pem.write_to_path(files.key)


def swap(files: Files) -> None:
    cert, key = files.cert.read_bytes(), files.key.read_bytes()
    files.cert.write_bytes(key)
    files.key.write_bytes(cert)


def damage(files: Files) -> None:
    text = files.cert.read_text()
    files.cert.write_text(text[:200] + "AAAA" + text[204:])


def damage_ca(files: Files) -> None:
    files.client_ca.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("harm", "named", "told"),
    [
        (lambda files: files.cert.unlink(), "cert.pem", "cannot be read: No such file"),
        (lambda files: files.key.unlink(), "key.pem", "cannot be read: No such file"),
        (lambda files: files.client_ca.unlink(), "ca.pem", "cannot be read: No such file"),
        (lambda files: files.cert.write_text("x"), "cert.pem", "holds no certificate"),
        (lambda files: files.key.write_text("x"), "key.pem", "holds no private key"),
        (lambda files: files.client_ca.write_text("x"), "ca.pem", "holds no certificate"),
        (lambda files: files.key.write_bytes(files.cert.read_bytes()), "key.pem", "no private key"),
        (swap, "cert_file ", "no certificate in PEM, but a private key: is it the key_file?"),
        (encrypt, "key.pem", "is encrypted"),
        (encrypt_as_of_old, "key.pem", "is encrypted"),
        (other_key, "key.pem", "is not the key of the certificate in"),
        (damage, "cert.pem", "are no certificate and key"),
        (damage_ca, "ca.pem", "damaged"),
    ],
)
def test_what_cannot_be_used(
    files: Files, harm: Callable[[Files], object], named: str, told: str
) -> None:
    """At the start it is refused; later what was there before stays."""
    tls = Tls(files.cert, files.key, files.client_ca)
    before, context = tls.pem, tls.context.now
    harm(files)
    with pytest.raises(TlsInvalid) as caught:
        Tls(files.cert, files.key, files.client_ca)
    assert named in caught.value.path
    assert told in caught.value.detail
    with pytest.raises(TlsInvalid):
        tls.use(tls.read())
    assert tls.pem is before
    assert tls.context.now is context


def handshake(tls: Tls, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A client's side and the server's, when both are content. Raises what either raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        tls.context.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    for _ in range(10):
        for at, side in enumerate(sides):
            try:
                side.do_handshake()
                done[at] = True
            except ssl.SSLWantReadError:
                done[at] = False
        if all(done):
            return sides
    raise AssertionError("it does not end")


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def test_the_newest_files_count(files: Files) -> None:
    tls = Tls(files.cert, files.key, None)
    client = trusting(files.ca)
    first, _ = handshake(tls, client)
    files.write()
    again, _ = handshake(tls, client)
    assert again.getpeercert() == first.getpeercert()
    tls.use(tls.read())
    new, _ = handshake(tls, client)
    assert new.getpeercert() != first.getpeercert()
    assert first.selected_alpn_protocol() is None


@pytest.mark.parametrize(
    ("begins", "ends", "refused", "until"),
    [
        (-2, 2, "", None),
        (-2, -1, "has expired", 0.0),
        (1, 2, "is not valid yet", None),
    ],
)
def test_a_certificate_whose_time_is_not_now(
    files: Files,
    caplog: pytest.LogCaptureFixture,
    begins: int,
    ends: int,
    refused: str,
    until: float | None,
) -> None:
    """Told at the start and again when files change; begins and ends in days from now."""
    now = datetime.now(UTC).replace(microsecond=0)
    not_after = now + timedelta(days=ends)
    made = files.ca.issue_cert(
        "localhost", not_before=now + timedelta(days=begins), not_after=not_after
    )
    tls = Tls(files.cert, files.key, None)
    assert tls.validity.refused == ""
    made.private_key_pem.write_to_path(files.key)
    files.cert.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    tls.use(tls.read())
    Tls(files.cert, files.key, files.client_ca)
    wanted = until if refused else not_after.timestamp()
    assert tls.validity == (wanted, refused)
    line = f"cert_file {files.cert}: clients will refuse the certificate: it {refused}"
    assert caplog.messages == ([line, line] if refused else [])


def test_old_versions_are_refused(files: Files) -> None:
    tls = Tls(files.cert, files.key, None)
    client = trusting(files.ca)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(tls, client)[0].version() == "TLSv1.2"
    assert tls.context.now.minimum_version is ssl.TLSVersion.TLSv1_2
    assert handshake(tls, trusting(files.ca))[0].version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_that_is_gone_is_not_trusted(files: Files, version: ssl.TLSVersion) -> None:
    """Nor is a session resumed that one of its certificates began."""
    tls = Tls(files.cert, files.key, files.client_ca)
    client = trusting(files.ca)
    client.maximum_version = version
    with pytest.raises(ssl.SSLError):
        handshake(tls, client)
    files.ca.issue_cert("client@example.org").configure_cert(client)
    side, server = handshake(tls, client)
    assert server.getpeercert()
    server.write(b"x")  # with TLS 1.3 the session comes after the handshake
    assert side.read() == b"x"
    trustme.CA().cert_pem.write_to_path(files.client_ca)
    tls.use(tls.read())
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    resumed = client.wrap_bio(
        to_client, to_server, server_hostname="localhost", session=side.session
    )
    answering = tls.context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLError):  # noqa: PT012  step by step
        for _ in range(10):
            for each in (resumed, answering):
                try:
                    each.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    assert not resumed.session_reused
