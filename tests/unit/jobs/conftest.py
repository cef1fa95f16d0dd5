"""Stores of both kinds, for tests of what every store does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from job_stores import Place
from nerve.jobs.records import JobStore
from postgres_cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL."""
    with running_cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a store can be made, of each kind."""
    if request.param == "sqlite":
        return Place(tmp_path / "jobs.db", None)
    running: Cluster = request.getfixturevalue("cluster")
    return Place(tmp_path, running.new_schema())


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[JobStore]:
    """An open store of each kind."""
    opened = place.store()
    await opened.open()
    yield opened
    await opened.aclose()
