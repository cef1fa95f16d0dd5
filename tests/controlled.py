"""A control service over models that a fake opens: what a front end asks of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fake_models import PATIENCE_S, FakeOpener, World
from model_folders import word_of
from nerve.config.server import ServerConfig
from nerve.metrics.requests import RequestMetrics
from nerve.repository.sync import RepositorySync
from nerve.service.control import ControlService
from nerve.service.inference import InferenceService


class Controlled(World):
    """The services and all below them."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(opener=FakeOpener(word_of), default_model=config.default_model)
        self.sync = RepositorySync(self.manager, self.catalog, config=config)
        self.control = ControlService(self.catalog, self.sync, config=config)
        metrics = RequestMetrics(self.registry)
        self.inference = InferenceService(self.catalog, config=config, metrics=metrics)


@asynccontextmanager
async def controlled(
    repository: Path, *, failures: dict[str, Exception] | None = None, **settings: object
) -> AsyncIterator[Controlled]:
    """Everything found and loaded as the mode says; nothing looks again by itself."""
    given = {
        "repositories": [repository],
        "model_control_mode": "explicit",
        "settle_seconds": 0.05,  # the models were written a moment ago
        **settings,
    }
    made = Controlled(ServerConfig.model_validate(given))
    made.opener.failures.update(failures or {})
    try:
        await made.sync.find()
        await made.sync.load_all()
        yield made
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await made.inference.aclose()
            await made.sync.aclose()
        await made.aclose()
