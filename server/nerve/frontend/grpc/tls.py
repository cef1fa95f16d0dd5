"""gRPC's credentials of TLS; a connection gets the files' newest content."""

from __future__ import annotations

from typing import Protocol

import grpc


class Files(Protocol):
    """What is in the files for TLS, in PEM."""

    @property
    def pem(self) -> tuple[bytes, bytes, bytes | None]:
        """Certificate with its chain, private key, and authorities of clients."""

    @property
    def wants_clients_certificate(self) -> bool:
        """Whether a client without one is refused."""


def credentials(files: Files) -> grpc.ServerCredentials:
    """What a server listens with; a change of `files.pem` counts from the next connection on."""
    used = files.pem

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Asked by grpc, in threads of its own, for each new connection; None: as before."""
        nonlocal used
        if files.pem is used:
            return None
        used = files.pem
        return _configuration(used)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        changed,  # type: ignore[arg-type]  # None is not in the stubs, but in the documentation
        require_client_authentication=files.wants_clients_certificate,
    )


def _configuration(
    pem: tuple[bytes, bytes, bytes | None],
) -> grpc.ServerCertificateConfiguration:
    certificate, key, client_ca = pem
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)
