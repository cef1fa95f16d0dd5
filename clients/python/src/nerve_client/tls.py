"""TLS with files of the caller's: whom to trust, and what to show to a server that asks."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from nerve_client.address import Address


def check(address: Address) -> None:
    """Raises ValueError, which names the setting and the file, where one of them cannot be used."""
    if address.key_file is not None and address.cert_file is None:
        raise ValueError("key_file is nothing without cert_file")
    if address.tls and (address.ca_file is not None or address.cert_file is not None):
        context_of(address, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def context_of(address: Address, otherwise: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """For connections to an address. `otherwise` makes one without files, that trusts whom it does.

    Raises:
        ValueError: see `check`.
    """
    context = otherwise() if address.ca_file is None else _trusting(address.ca_file)
    if address.cert_file is not None:
        _show(context, address.cert_file, address.key_file)
    return context


def pem(address: Address) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Contents of the files, as gRPC takes them: authorities, private key, certificate."""
    key_file = address.key_file or address.cert_file  # one file may have both
    ca, key, chain = (
        None if path is None else path.read_bytes()
        for path in (address.ca_file, key_file, address.cert_file)
    )
    return ca, key, chain


def _trusting(ca_file: Path) -> ssl.SSLContext:
    _readable("ca_file", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file: {ca_file} holds no certificate in PEM") from error


def _show(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    _readable("cert_file", cert_file)
    if key_file is not None:
        _readable("key_file", key_file)

    def password() -> bytes:  # else OpenSSL asks the terminal
        raise ValueError(f"key_file: {key_file or cert_file} is encrypted; write it without")

    try:
        context.load_cert_chain(cert_file, key_file, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"{key_file or cert_file} is not the key of the certificate in {cert_file}"
            raise ValueError(f"key_file: {fault}") from error
        fault = f"{cert_file} and {key_file or 'what is in it'} are no certificate and key in PEM"
        raise ValueError(f"cert_file: {fault}") from error


def _readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from error
