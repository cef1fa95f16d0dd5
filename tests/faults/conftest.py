"""Daemons that are mistreated; each test leaves its own as it was."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from faults.mistreated import Served, calm, serving, until

SLOW = """
max_batch_size: 1024
max_num_tokens: 65536
dynamic_batching: {max_queue_delay_microseconds: 800000}
"""
"""A model that takes so long for a lone request: it waits for company."""
IMPATIENT = (
    "--head-timeout", "0.4", "--body-timeout", "0.4", "--write-timeout", "0.6",
)  # fmt: skip


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Path:
    """A model, and the same one slow."""
    folder = tmp_path_factory.mktemp("faults") / "repository"
    shutil.copytree(tiny_models / "bert", folder / "bert")
    shutil.copytree(tiny_models / "bert", folder / "slow")
    (folder / "slow" / "config.yaml").write_text(SLOW)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A daemon that waits for nobody."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    async with serving(repository, log, *IMPATIENT) as served:
        yield served
        served.terminate()
        assert await served.ended() == 0
    calm(log.read_text())


@pytest_asyncio.fixture(loop_scope="module")
async def served(impatient: Served) -> AsyncIterator[Served]:
    """The same; after the test it answers, and has no more open than before."""
    assert await impatient.ask() == 200
    before = impatient.files()
    yield impatient
    assert await impatient.ask() == 200
    await until(lambda: impatient.files() <= before, "its connections are closed")
    assert await impatient.waiting("slow") == 0
    calm(impatient.logged())
