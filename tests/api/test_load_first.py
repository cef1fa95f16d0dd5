"""A server of one fixed model, as a built file is: ports open when it can answer, and not before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from api.conftest import BOUND_S, settings
from nerve.app import App
from nerve.errors import LoadFailed

if TYPE_CHECKING:
    from api.conftest import Repository


async def test_ports_open_when_the_model_is_loaded(repository: Repository) -> None:
    """The lines come in the usual order all the same."""
    repository.add("bert")
    told: list[tuple[str, bool]] = []
    config = settings(repository.path, disable_grpc=False, grpc_port=0, enable_mcp=True)
    app = App(config, announce=lambda line: told.append((line, app.catalog.ready)), load_first=True)
    try:
        async with asyncio.timeout(BOUND_S):
            ports = await app.start()
    finally:
        await app.stop()
    assert told == [
        (f"Starting HTTP server on 127.0.0.1:{ports['http']}", True),
        (f"Starting gRPC server on {config.grpc_hostname}:{ports['grpc']}", True),
        ("Model: bert v1", True),
    ]


async def test_a_model_that_cannot_be_loaded_opens_none(repository: Repository) -> None:
    """Whoever waits for the port must not take it for a server."""
    repository.add("bert")
    (repository.path / "bert" / "model.onnx").write_bytes(b"no graph")
    told: list[str] = []
    config = settings(repository.path, exit_on_error=True, enable_mcp=True)
    app = App(config, announce=told.append, load_first=True)
    try:
        with pytest.raises(LoadFailed):
            await app.start()
    finally:
        await app.stop()
    assert told == []
