"""HTTPS to a running server: the files that it takes, and what a handshake that failed means."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nerve.errors import InvalidField, NerveError

TRUSTED_VARIABLE: Final = "SSL_CERT_FILE"
"""OpenSSL's own name for a file of authorities in place of the system's."""
_HOST_MISMATCH: Final = (62, 64)
_NOT_NOW: Final = (9, 10)
"""Codes of X509_V_ERR_…: another host or address; not valid yet, or no more."""
_PLAIN: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL says to an answer that is no TLS, by release."""


class HandshakeFailed(NerveError):
    """A server is there, and it and we did not agree on TLS; `detail` is a sentence with a remedy."""

    reason = "handshake_failed"

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url, self.detail = url, detail

    def __str__(self) -> str:
        return f"a server is there at {self.url}, but {self.detail}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks a server, and whom it trusts to be that server. Files are PEM."""

    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Authorities in place of the system's."""
    cert_file: Path | None = None
    """A certificate for a server that wants one of its clients."""
    key_file: Path | None = None
    """Its key; None: it is in the same file."""


def context_of(identity: Identity) -> ssl.SSLContext:
    """For connections to a server with https.

    Raises:
        InvalidField: a file cannot be used, or there is a key without a certificate.
    """
    trusted = os.environ.get(TRUSTED_VARIABLE)
    if identity.ca_file is not None:
        context = _trusting("--ca-file", identity.ca_file)
    elif trusted:  # which OpenSSL would ignore if it is not there
        context = _trusting(TRUSTED_VARIABLE, Path(trusted))
    else:
        context = ssl.create_default_context()
    if identity.cert_file is not None:
        _show(context, identity.cert_file, identity.key_file)
    elif identity.key_file is not None:
        raise InvalidField("--key-file", "is nothing without --cert-file")
    return context


def _trusting(where: str, path: Path) -> ssl.SSLContext:
    _readable(where, path)
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise InvalidField(where, f"{path} holds no certificate in PEM") from error


def _show(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    _readable("--cert-file", cert_file)
    if key_file is not None:
        _readable("--key-file", key_file)

    def password() -> bytes:  # else OpenSSL asks the terminal
        raise InvalidField("--key-file", f"{key_file or cert_file} is encrypted; write it without")

    try:
        context.load_cert_chain(cert_file, key_file, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"{key_file or cert_file} is not the key of the certificate in {cert_file}"
            raise InvalidField("--key-file", fault) from error
        fault = f"{cert_file} and {key_file or 'what is in it'} are no certificate and key in PEM"
        raise InvalidField("--cert-file", fault) from error


def _readable(where: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InvalidField(where, f"{path} cannot be read: {error.strerror}") from error


def told(url: str, error: ssl.SSLError, *, shown: bool) -> HandshakeFailed:
    """What the error means. Pure.

    Args:
        url: that was asked.
        error: of the handshake, or of the first read: with TLS 1.3 a server refuses a client then.
        shown: whether a certificate of ours was there to be shown.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeFailed(url, _mistrust(error))
    reason = error.reason or ""
    if reason in _PLAIN:
        return HandshakeFailed(url, "it does not speak TLS: try http://")
    if "ALERT" in reason and not shown and ("CERTIFICATE" in reason or "HANDSHAKE" in reason):
        return HandshakeFailed(
            url, "it wants a certificate of its clients: give --cert-file and --key-file"
        )
    if "ALERT" in reason and shown:
        said = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return HandshakeFailed(url, f"it does not take the certificate in --cert-file: {said}")
    return HandshakeFailed(url, f"TLS with it failed: {reason or error}")


def _mistrust(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _HOST_MISMATCH:
        return f"its certificate is another's: {said}; name it in --url as its certificate does"
    if error.verify_code in _NOT_NOW:
        return f"its certificate is not valid now: {said}; it needs a new one"
    return (
        f"its certificate is not trusted: {said}; give the PEM file of its authority as --ca-file, "
        f"or in {TRUSTED_VARIABLE}"
    )
