"""Where a server is: a URL whose scheme also says how to talk to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nerve_client import checks

HTTP_SCHEMES: Final = ("http", "https")
GRPC_SCHEMES: Final = ("grpc", "grpcs")
GRPC_PORT: Final = 50051


@dataclass(frozen=True, slots=True)
class Address:
    """`url` of HTTP, or the `target` of gRPC and whether it is `tls`; "" where it is the other.

    `ca_file` holds PEM certificates to trust in place of the system's, `cert_file` and `key_file` what
    is shown to a server that wants a certificate of its clients.
    """

    url: str = ""
    target: str = ""
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def shown(self) -> str:
        """The URL for messages: without a user's name and password, and without a `/` at its end."""
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{place}{parts.path}".rstrip("/")


def parse(
    url: str,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
) -> Address:
    """`http://host:8080/prefix` (or https) or `grpc://host:50051` (or grpcs) as an address.

    Without a port HTTP has its own, 80 or 443, and gRPC 50051.

    Raises:
        ValueError: it is neither, or has a port that there is not.
        TypeError: it is no string.
    """
    checks.word("url", url)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"the port of an address must be 1 to 65535, not as in {url!r}")
    if parts.scheme in HTTP_SCHEMES and parts.hostname:
        return Address(
            url=url,
            tls=parts.scheme == "https",
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
    if parts.scheme in GRPC_SCHEMES and parts.hostname:
        if parts.path.strip("/") or parts.query or parts.username:
            raise ValueError(f"a gRPC address has only a host and a port, not {url!r}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return Address(
            target=f"{host}:{port or GRPC_PORT}",
            tls=parts.scheme == "grpcs",
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
    raise ValueError(f"expected http(s)://host:port or grpc(s)://host:port, got {url!r}")
