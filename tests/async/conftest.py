"""What daemons serve here, and where their webhooks are."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from later import Receiver, receiving

PATIENT = """
max_batch_size: 2
instance_group: {count: 1, kind: KIND_CPU}
dynamic_batching: {scheduler: fifo, max_queue_delay_microseconds: 10000000}
model_warmup: [{batch_size: 2}]
"""
"""A model that waits for a second text for as long as a model may; two run at once."""
BROKEN = "function Postprocess(scores) error('it is broken') end\n"
MENDED = "function Postprocess(scores) return scores end\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Path:
    """`bert`; `patient`, which answers two texts at a time; and `poison`, whose script fails."""
    folder = tmp_path_factory.mktemp("async") / "repository"
    for name in ("bert", "patient", "poison"):
        shutil.copytree(tiny_models / "bert", folder / name)
    (folder / "patient" / "config.yaml").write_text(PATIENT)
    (folder / "poison" / "transform.lua").write_text(BROKEN)
    config = "transform: {path: transform.lua}\nvalidate_transform: false\n"
    (folder / "poison" / "config.yaml").write_text(config)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """A server for webhooks."""
    async with receiving() as receiver:
        yield receiver
