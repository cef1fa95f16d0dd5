"""The real tritonclient, every client and every method, in processes of its own.

The checks are in `triton/`; what fails is told with its traceback.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.separate import run_python
from support import Daemon


@pytest.mark.parametrize("kind", ["grpc", "grpc.aio", "http", "http.aio"])
async def test_client(kind: str, controlled_daemon: Daemon, bundled: Path) -> None:
    """Everything that a client can do, and streaming where it can."""
    daemon, model = controlled_daemon, bundled / "minilm-ner" / "1"
    grpc_port = str(daemon.ports["grpc"])
    printed = await run_python("clients.triton", kind, daemon.url, grpc_port, model)
    assert printed.count("passed clients.triton.") > 30


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_one_process(first: str) -> None:
    """Our generated code and tritonclient's, whichever is imported first."""
    await run_python("clients.triton.one_process", first)
