"""A server that wants keys, which the tests of one process share, and its keys."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from api.conftest import Repository, in_thread, settings
from grpc_calls import LISTENING, port_of
from nerve.security.keys import PREFIX

if TYPE_CHECKING:
    from api.conftest import Client, Server

SCOPES: Final = ("read", "predict", "admin")
SITE: Final = "https://app.example"


def secret(name: str) -> str:
    """A key of the shape of ours."""
    return PREFIX + f"{name}-secret".ljust(43, "0")


def digest(name: str) -> str:
    return hashlib.sha256(secret(name).encode()).hexdigest()


def sent(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret(name)}"}


def entry(name: str, *scopes: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": digest(name), "scopes": [*scopes], **more}


ENTRIES: Final = [
    *(entry(scope, scope) for scope in SCOPES),
    entry("seldom", "predict", "read", rate_limit={"requests_per_second": 0.02, "burst": 2}),
    entry("rarely", "predict", rate_limit={"requests_per_second": 0.02, "burst": 2}),
    entry("former", "admin", expires="2020-01-01"),
]


def write_keys(folder: Path) -> Path:
    path = folder / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": ENTRIES}))
    return path


@pytest.fixture(scope="package")
def keyed(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """A server that wants keys, and lets pages of one web site read its answers."""
    folder = tmp_path_factory.mktemp("keyed")
    repository = Repository(folder / "models", tiny_models)
    repository.add("bert")
    config = settings(
        repository.path,
        api_keys_file=write_keys(folder),
        cors_allowed_origins=[SITE],
        enable_mcp=True,
        **LISTENING,
    )
    with in_thread(config) as server:
        yield server


@pytest.fixture
async def http(keyed: Server) -> AsyncIterator[Client]:
    async with keyed.client() as client:
        yield client


@pytest.fixture
def grpc_port(keyed: Server) -> int:
    return port_of(keyed.announced)
