"""Until when a certificate is of use.

The standard library reads only certificates that it has verified, so one is shown to a client that
trusts nothing but it.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final, NamedTuple

MAX_TURNS: Final = 10
"""A handshake takes fewer."""
_REFUSED: Final = {9: "is not valid yet", 10: "has expired"}
"""By OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED."""


class Validity(NamedTuple):
    """`until`: seconds since 1970; 0 if that is over; None if it cannot be told.

    `refused`: why clients refuse the certificate now; empty if they do not for its time.
    """

    until: float | None
    refused: str = ""


def validity_of(server: ssl.SSLContext) -> Validity:
    """That of the certificate which a server shows that asks its clients for none."""
    reading = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reading.check_hostname = False
    reading.verify_mode = ssl.CERT_NONE
    try:
        shown = _handshake(reading, server).getpeercert(binary_form=True)
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an end, not an authority
        trusting.load_verify_locations(cadata=shown)
        told = _handshake(trusting, server).getpeercert() or {}
        return Validity(ssl.cert_time_to_seconds(str(told["notAfter"])))
    except ssl.SSLCertVerificationError as error:
        refused = _REFUSED.get(error.verify_code, "")
        return Validity(0.0 if error.verify_code == 10 else None, refused)
    except (ssl.SSLError, KeyError, ValueError, TypeError):
        return Validity(None)  # whether it can be used is for others to say


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """The client's side. Raises ssl.SSLError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = client.wrap_bio(to_client, to_server)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(MAX_TURNS):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
            return side
        with contextlib.suppress(ssl.SSLWantReadError):
            other.do_handshake()
    raise ssl.SSLError("the handshake does not end")
