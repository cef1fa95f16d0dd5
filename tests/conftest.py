"""What all rings share: the paths of the checkout."""

from __future__ import annotations

import asyncio.constants
import gc
import itertools
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from nerve.starting import GC_THRESHOLDS

ROOT = Path(__file__).parents[1]

# Hundreds of processes import the same sources, and three collect the same tests: what one of them has
# compiled, the others read, even where the environment (many images of containers) forbids to keep it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def _no_stacks() -> None:
    """Debug mode checks much, and has each future, handle and coroutine keep where it was made.

    To find that out takes a tenth of tests/api, and is only told of what is never awaited. C's futures
    ask for the whole stack, whatever the limit is.
    """
    asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[misc]
    whole = traceback.walk_stack

    def walk_stack(f: FrameType | None) -> Iterator[tuple[FrameType, int]]:
        return itertools.islice(whole(f), asyncio.constants.DEBUG_STACK_DEPTH)

    traceback.walk_stack = walk_stack


_no_stacks()
gc.set_threshold(
    *GC_THRESHOLDS
)  # as our processes have it: an eighth of tests/api was spent on garbage


def pytest_collection_finish() -> None:
    """What there is now, thousands of tests among it, is there to the end."""
    gc.collect()
    gc.freeze()


TOGETHER = frozenset({"tests/browser", "tests/clients", "tests/unit/jobs"})
"""Folders whose files one process runs: each process would start a browser, daemons or a database of
its own for them."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """As `--dist loadfile`, but with `TOGETHER`; any other way of sharing out is left alone."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415  not without -n

    class LoadTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        """Knows which files belong together."""

        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder in TOGETHER else file

    return LoadTogether(config, log)


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
