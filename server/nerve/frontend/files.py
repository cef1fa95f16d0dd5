"""How many files this process may open, and how the protocols share them: a connection is one."""

from __future__ import annotations

import sys
from typing import Final

from nerve.config.settings.limits import LimitSettings

OTHER_FILES: Final = 192
"""Those that are no connections that count: models, and what HTTP refuses."""
PART_OF_GRPC: Final = 4
"""Of what is left, gRPC gets at most one in so many."""


def open_files() -> int:
    """How many this process may have."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource  # noqa: PLC0415  not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def grpc_places(limits: LimitSettings) -> int:
    """Connections that gRPC may have, of which HTTP keeps its hands off: neither takes all files."""
    room = (open_files() - OTHER_FILES) // PART_OF_GRPC
    return max(1, min(limits.grpc_max_connections, room))
