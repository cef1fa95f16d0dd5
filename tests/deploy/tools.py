"""What the tests of deploy/ need besides pytest: packages and programs that may be missing."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from clients.separate import cannot

DEPLOY: Final = Path(__file__).parents[2] / "deploy"


def package(name: str, *, of: str) -> ModuleType:
    """A module of a package of PyPI's, without which the test skips, or fails in CI."""
    try:
        return importlib.import_module(name)
    except ImportError:
        cannot(f"{name} is missing: pip install {of}")


def program(name: str, *, of: str) -> str:
    """The path of a program, beside this Python or of the machine; without it the same."""
    here = str(Path(sys.executable).parent)
    found = shutil.which(name, path=here) or shutil.which(name)
    if found is None:
        cannot(f"{name} is missing: {of}")
    return found
