"""How one of our modules is started as a process of its own; also by a program that `nerve build` made.

Such a program has no interpreter to call: it starts itself, and its main hands over to `run_module`
before it looks at anything else.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from typing import Final

MODULES: Final = ("nerve.engine.precision", "nerve.proof_server", "nerve.transforming.worker")
"""All that may be started so."""
MODULE_FLAG: Final = "--nerve-module"
"""First argument of a built program that is to be one of them."""


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module (`python -m`) with these arguments.

    Raises:
        ValueError: it is none of MODULES.
    """
    _check(name)
    if is_frozen():
        return [sys.executable, MODULE_FLAG, name, *arguments]
    # -P: what lies in the working folder is not imported
    return [sys.executable, "-P", "-m", name, *arguments]


def is_frozen() -> bool:
    """Whether this is a program that `nerve build` made, not a Python installation."""
    return bool(getattr(sys, "frozen", False))


def asks_for_module(arguments: Sequence[str]) -> bool:
    """Whether a built program, started with these arguments, is to be one of MODULES."""
    return len(arguments) > 1 and arguments[0] == MODULE_FLAG


def run_module(arguments: Sequence[str]) -> None:
    """Be the module that the arguments ask for, until it ends.

    Raises:
        ValueError: it is none of MODULES.
    """
    _, name, *rest = arguments
    _check(name)
    sys.argv = [name, *rest]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _check(name: str) -> None:
    if name not in MODULES:
        raise ValueError(f"{name} is none of {', '.join(MODULES)}")
