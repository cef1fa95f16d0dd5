"""Whether the server in this container is ready: the exit status says so, and one line if it is not.

For HEALTHCHECK and exec probes, where there may be no curl. It reads the variables that the server
reads; what is set by flags or in a file it cannot know.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Mapping

TIMEOUT_S = 4.0


def main(environment: Mapping[str, str]) -> str:
    """What is wrong; empty if it is ready.

    `/readyz` on the metrics' own port, if there is one, else over HTTP or HTTPS. A server that wants
    clients' certificates, or has no HTTP, only tells whether it listens.
    """
    if metrics_port := environment.get("NERVE_METRICS_PORT"):
        port = int(metrics_port)
        return _ready(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S))
    port = int(environment.get("NERVE_HTTP_PORT") or 8080)
    if _on(environment, "NERVE_DISABLE_HTTP"):
        return _listens(int(environment.get("NERVE_GRPC_PORT") or 50051))
    if environment.get("NERVE_CLIENT_CA_FILE"):
        return _listens(port)
    if environment.get("NERVE_CERT_FILE"):
        # To ourselves: the name in the certificate is that of the outside.
        context = ssl._create_unverified_context()  # noqa: S323
        return _ready(
            http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
        )
    return _ready(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S))


def _ready(connection: http.client.HTTPConnection) -> str:
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers on port {connection.port}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"GET /readyz: {answer.status}"


def _listens(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S).close()
    except OSError as error:
        return f"nothing listens on port {port}: {error}"
    return ""


def _on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("1", "true", "t", "yes", "y", "on")


if __name__ == "__main__":
    sys.exit(main(os.environ) or 0)  # a text is printed, and the status 1
