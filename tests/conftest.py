"""What all rings share: the paths of the checkout."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that run in the test's process set up logging; the next test must not notice."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The repository with the bundled model."""
    return ROOT / "model_repository"


@pytest.fixture(scope="session")
def tiny_models() -> Path:
    """Export folders of five families, with random weights."""
    return ROOT / "tests" / "models"


@pytest.fixture
def tiny_repository(tmp_path: Path, tiny_models: Path) -> Path:
    """A repository with one tiny model, `bert`, as a flat export folder."""
    repository = tmp_path / "repository"
    shutil.copytree(tiny_models / "bert", repository / "bert")
    return repository
