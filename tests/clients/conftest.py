"""Daemons for real clients, which run in processes of their own and only ask."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support import Daemon, running_server

PATIENT = """\
max_batch_size: 2
dynamic_batching:
  scheduler: fifo
  max_queue_delay_microseconds: 10000000
  max_queue_size: 1
instance_group: {count: 1, kind: KIND_CPU}
model_warmup: [{batch_size: 2}]
"""
"""A queue that waits 10 s for a batch of two: one text stays queued, two run at once."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bundled_daemon(bundled: Path) -> AsyncIterator[Daemon]:
    """On the bundled model, with the flags that it has by default."""
    async with running_server(str(bundled)) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def controlled_daemon(
    tmp_path_factory: pytest.TempPathFactory, bundled: Path, tiny_models: Path
) -> AsyncIterator[Daemon]:
    """In explicit mode, on the bundled model and `patient`; `bert` is there to be loaded."""
    more = tmp_path_factory.mktemp("more") / "repository"
    for name in ("bert", "patient"):
        shutil.copytree(tiny_models / "bert", more / name)
    (more / "patient" / "config.yaml").write_text(PATIENT)
    flags = ("--model-control-mode", "explicit", "--default-model", "minilm-ner")
    models = ("--load-model", "minilm-ner", "--load-model", "patient")
    async with running_server(str(bundled), str(more), *flags, *models) as running:
        yield running
