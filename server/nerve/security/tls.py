"""TLS from files: what HTTP and gRPC need of them, made anew when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any, Final, NamedTuple

from nerve.errors import TlsInvalid
from nerve.security.validity import Validity, validity_of

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 4 * 2**20
LEAST: Final = ssl.TLSVersion.TLSv1_2
CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
KEY_END: Final = b"PRIVATE KEY-----"


class Pem(NamedTuple):
    """The content of the files, for gRPC, which takes nothing else."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Read(NamedTuple):
    """What the files hold, the context for HTTP that is made of it, and until when it is of use."""

    pem: Pem
    context: ssl.SSLContext
    validity: Validity


class _Current(ssl.SSLContext):
    """Stands for the context of the moment: whoever serves with it need not be told of a new one.

    A new one keeps nothing of the old: no authority of clients, and no session that could be
    resumed without asking for a certificate.
    """

    now: ssl.SSLContext

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:  # noqa: ANN401  as it is
        """Of a new connection."""
        return self.now.wrap_bio(*args, **named)


class Tls:
    """Certificate, key and authorities of clients."""

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        """Read them.

        Raises:
            TlsInvalid: one of the files cannot be used.
        """
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self.context = _Current(ssl.PROTOCOL_TLS_SERVER)
        """For HTTP; what is asked of it is asked of the newest."""
        self.use(self.read())

    @property
    def paths(self) -> list[Path]:
        """The files."""
        paths = [self._cert_file, self._key_file, self._client_ca_file]
        return [path for path in paths if path is not None]

    @property
    def wants_clients_certificate(self) -> bool:
        """Whether a client without one is refused."""
        return self._client_ca_file is not None

    def use(self, read: Read) -> None:
        """New connections get these; a line is logged if clients will refuse the certificate."""
        self.pem, self.context.now, self.validity = read
        if self.validity.refused:
            log.warning(
                "cert_file %s: clients will refuse the certificate: it %s",
                self._cert_file,
                self.validity.refused,
            )

    def read(self) -> Read:
        """What the files hold, and the context for HTTP that is made of it.

        Raises:
            TlsInvalid: one of them cannot be used.
        """
        certificate = _read("cert_file", self._cert_file)
        key = _read("key_file", self._key_file)
        if CERTIFICATE not in certificate:
            found = ", but a private key: is it the key_file?" if KEY_END in certificate else ""
            raise _invalid("cert_file", self._cert_file, f"holds no certificate in PEM{found}")
        if KEY_END not in key:
            found = ", but a certificate: is it the cert_file?" if CERTIFICATE in key else ""
            raise _invalid("key_file", self._key_file, f"holds no private key in PEM{found}")
        context = self._context()
        validity = validity_of(context)
        client_ca = None
        if self._client_ca_file is not None:
            client_ca = _read("client_ca_file", self._client_ca_file)
            _trust(context, client_ca, self._client_ca_file)
        files = ("cert_file", self._cert_file), ("key_file", self._key_file)
        if [_read(*each) for each in files] != [certificate, key]:
            raise _invalid("cert_file", self._cert_file, "changes while it is read")
        return Read(Pem(certificate, key, client_ca), context, validity)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = LEAST
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])

        def password() -> bytes:  # else OpenSSL asks the terminal
            raise _invalid(
                "key_file",
                self._key_file,
                "is encrypted; write it without a passphrase (openssl pkey -in FILE -out NEW), "
                "readable by the server only",
            )

        try:
            context.load_cert_chain(self._cert_file, self._key_file, password)
        except ssl.SSLError as error:
            raise self._told(error) from error
        except OSError as error:
            detail = f"cannot be read: {error.strerror}"
            raise _invalid("cert_file", self._cert_file, detail) from error
        return context

    def _told(self, error: ssl.SSLError) -> TlsInvalid:
        if error.reason == "KEY_VALUES_MISMATCH":
            detail = f"is not the key of the certificate in {self._cert_file}"
            return _invalid("key_file", self._key_file, detail)
        detail = (error.reason or error.strerror or "damaged").replace("_", " ").lower()
        both = f"cert_file {self._cert_file} and key_file {self._key_file}"
        return TlsInvalid(both, f"are no certificate and key: {detail}")


def _trust(context: ssl.SSLContext, client_ca: bytes, path: Path) -> None:
    """Have clients show a certificate from one of these authorities. Raises TlsInvalid."""
    if CERTIFICATE not in client_ca:
        raise _invalid("client_ca_file", path, "holds no certificate in PEM")
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise _invalid("client_ca_file", path, "holds a certificate that is damaged") from error


def _invalid(setting: str, path: Path, detail: str) -> TlsInvalid:
    return TlsInvalid(f"{setting} {path}", detail)


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(setting, path, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(setting, path, f"is over {MAX_FILE_BYTES} bytes")
    return content
