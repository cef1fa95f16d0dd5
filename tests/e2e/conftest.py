"""Daemons that tests share, each with the flags that it has by default; their tests only ask."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support import Daemon, running_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bundled_daemon(
    bundled: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Daemon]:
    """On the bundled model, with async inference."""
    store = tmp_path_factory.mktemp("store") / "async.sqlite"
    async with running_server(str(bundled), "--async-store", str(store)) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tiny_daemon(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Daemon]:
    """On one tiny model, `bert`."""
    repository = tmp_path_factory.mktemp("tiny") / "repository"
    shutil.copytree(tiny_models / "bert", repository / "bert")
    async with running_server(str(repository)) as running:
        yield running
