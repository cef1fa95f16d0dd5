"""Why nobody can listen somewhere, in words that name the flag to choose with."""

from __future__ import annotations

import errno
import socket


def refusal(error: OSError, flags: str) -> str:
    """What is wrong, and what would help.

    Args:
        error: of a look-up or of listening.
        flags: how the flags of this listener begin, such as "--http".
    """
    if isinstance(error, socket.gaierror):
        return f"no address has that name ({error.strerror}); choose another with {flags}-hostname"
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is in use; choose another with {flags}-port"
        case errno.EADDRNOTAVAIL:
            return f"no such address on this machine; choose another with {flags}-hostname"
        case errno.EACCES:
            return f"this user may not listen on that port; choose another with {flags}-port"
    return error.strerror or str(error)
